//! A client that keeps its connection alive and never retries.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::host_support::PATIENCE;

pub struct Client {
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
}

pub type Answer = Response<Value>;

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
        }
    }

    async fn connection(&mut self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        if let Some(mut open) = self.connection.take()
            && open.ready().await.is_ok()
        {
            return Ok(open);
        }
        let stream = tokio::net::TcpStream::connect(self.address).await?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let mut connection = self.connection().await?;
        let answer = tokio::time::timeout(PATIENCE, async {
            let (head, body) = connection.send_request(request).await?.into_parts();
            let bytes = body.collect().await?.to_bytes();
            anyhow::Ok(Response::from_parts(
                head,
                serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            ))
        })
        .await??;
        // A server that says so closes, and says so before it does: that is no failure.
        if answer
            .headers()
            .get("connection")
            .is_none_or(|value| value != "close")
        {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        let request = Request::get(path)
            .header("host", "test")
            .body(Full::default())
            .unwrap();
        self.send(request).await.unwrap()
    }

    pub async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::post(path)
            .header("host", "test")
            .body(Full::new(body.into()))
            .unwrap();
        self.send(request).await.unwrap()
    }

    pub async fn infer(&mut self, body: &Value) -> Answer {
        self.post("/v2/models/digits/infer", body.to_string()).await
    }

    /// Classifies one image and gives the label, where there is an answer.
    pub async fn label(&mut self, image: &Value) -> Result<i64, (StatusCode, Value)> {
        let answer = self.infer(&request(image)).await;
        if answer.status() != StatusCode::OK {
            return Err((answer.status(), answer.into_body()));
        }
        Ok(label(answer.body()))
    }
}

pub fn request(image: &Value) -> Value {
    json!({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 8, 8], "data": image}]})
}

pub fn label(answer: &Value) -> i64 {
    let outputs = answer["outputs"].as_array().unwrap();
    let label = outputs
        .iter()
        .find(|output| output["name"] == "label")
        .unwrap();
    label["data"][0].as_i64().unwrap()
}

/// The digits that no model saw in training: image and label.
pub fn held_out() -> Vec<(Value, i64)> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/data/digits-heldout.json"
    );
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    file["digits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|digit| (digit["image"].clone(), digit["label"].as_i64().unwrap()))
        .collect()
}
