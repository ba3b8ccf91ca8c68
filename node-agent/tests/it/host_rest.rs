//! The endpoint, on right and on wrong requests.

use http::StatusCode;
use serde_json::{Value, json};

use crate::host_client::{Client, held_out, label, request};
use crate::host_support::{Host, Package};

fn image() -> Value {
    held_out()[0].0.clone()
}

#[tokio::test]
async fn digits_are_read_as_the_model_was_measured() {
    let (host, _) = Host::serving(&Package::good()).await;
    let mut client = Client::new(host.address);
    let digits = held_out();
    let mut right = 0;
    for (image, wanted) in &digits {
        right += u32::from(client.label(image).await.unwrap() == *wanted);
    }
    assert_eq!((right, digits.len()), (351, 360));
}

#[tokio::test]
async fn a_whole_answer_has_the_shape_of_the_protocol() {
    let (host, _) = Host::serving(&Package::good()).await;
    let mut client = Client::new(host.address);
    let mut body = request(&image());
    body["id"] = json!("request 7 \"é\"");
    body["parameters"] = json!({"sequence_id": 4, "anything": "else"});
    body["outputs"] = json!([{"name": "label"}]);
    let answer = client.infer(&body).await;
    assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
    assert_eq!(answer.headers()["rimward-model-version"], "digits-1.0.0");
    assert_eq!(
        *answer.body(),
        json!({
            "model_name": "digits", "model_version": "digits-1.0.0", "id": "request 7 \"é\"",
            "outputs": [{"name": "label", "datatype": "INT64", "shape": [1], "data": [4]}],
        })
    );
    let two = json!({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [2, 8, 8], "data": [nested(), nested()]}]});
    let answer = client.infer(&two).await;
    assert_eq!(
        answer.body()["outputs"][1]["data"],
        json!([4, 4]),
        "{answer:?}"
    );
}

/// The first image as rows.
fn nested() -> Value {
    let image = image();
    let rows = image.as_array().unwrap().chunks(8);
    rows.map(|row| Value::from(row.to_vec())).collect()
}

#[tokio::test]
async fn metadata_and_readiness_follow_the_routes() {
    let mut host = Host::start().await;
    let mut client = Client::new(host.address);
    let status = |answer: http::Response<Value>| answer.status();
    assert_eq!(status(client.get("/v2/health/live").await), StatusCode::OK);
    assert_eq!(
        status(client.get("/v2/health/ready").await),
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        status(client.get("/v2/models/digits/ready").await),
        StatusCode::NOT_FOUND
    );
    let slot = host.load(&Package::good()).await;
    assert_eq!(
        status(client.get("/v2/models/digits/ready").await),
        StatusCode::NOT_FOUND
    );
    host.route(Some(slot), None).await;
    assert_eq!(status(client.get("/v2/health/ready").await), StatusCode::OK);
    assert_eq!(
        status(client.get("/v2/models/digits/ready").await),
        StatusCode::OK
    );
    assert_eq!(
        status(
            client
                .get("/v2/models/digits/versions/digits-1.0.0/ready")
                .await
        ),
        StatusCode::OK
    );
    assert_eq!(
        status(client.get("/v2/models/digits/versions/other/ready").await),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        client.get("/v2/models").await.into_body(),
        json!({"models": ["digits"]})
    );
    assert_eq!(client.get("/v2").await.into_body()["name"], "rimward");
    let metadata = client.get("/v2/models/digits").await.into_body();
    assert_eq!(metadata["versions"], json!(["digits-1.0.0"]));
    assert_eq!(metadata["platform"], "onnx_rten");
    assert_eq!(
        metadata["inputs"],
        json!([{"name": "image", "datatype": "UINT8", "shape": [-1, 8, 8]}])
    );
    host.route(None, None).await;
    assert_eq!(
        status(client.get("/v2/models/digits/ready").await),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn every_wrong_request_is_told_what_is_wrong_and_the_next_one_is_served() {
    let (mut host, slot) = Host::serving(&Package::good()).await;
    let mut client = Client::new(host.address);
    let good = request(&image());
    let with = |pointer: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        body.to_string().into_bytes()
    };
    let deep = format!(
        r#"{{"inputs":[{{"name":"image","datatype":"UINT8","shape":[1,8,8],"data":{}1{}}}]}}"#,
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    let deep_parameters = format!(
        r#"{{"parameters":{}1{},"inputs":[]}}"#,
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    let truncated = good.to_string();
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty body", Vec::new(), &["not JSON"]),
        ("truncated", truncated.as_bytes()[..truncated.len() / 2].to_vec(), &["not JSON"]),
        ("no inputs", b"{}".to_vec(), &["inputs"]),
        ("empty inputs", br#"{"inputs":[]}"#.to_vec(), &["\"image\" is missing"]),
        ("deep data", deep.into_bytes(), &["inputs[0] (image).data", "nested deeper"]),
        ("deep parameters", deep_parameters.into_bytes(), &["not JSON"]),
        ("wrong name", with("/inputs/0/name", json!("picture")), &["no input \"picture\"", "image"]),
        ("twice", with("/inputs", json!([good["inputs"][0], good["inputs"][0]])), &["image", "2 times"]),
        ("wrong datatype", with("/inputs/0/datatype", json!("FP32")), &["image", "FP32", "UINT8"]),
        ("no datatype", with("/inputs/0/datatype", json!("float")), &["inputs[0] (image).datatype", "float"]),
        ("wrong shape", with("/inputs/0/shape", json!([1, 64])), &["image", "[1, 64]", "[-1, 8, 8]"]),
        ("negative shape", with("/inputs/0/shape", json!([-1, 8, 8])), &["inputs[0] (image).shape", "-1"]),
        ("endless shape", with("/inputs/0/shape", json!([4294967295u32, 4294967295u32, 4294967295u32])), &["shape"]),
        ("huge shape", with("/inputs/0/shape", json!([1_000_000_000, 8, 8])), &["has 64 elements"]),
        ("many dimensions", with("/inputs/0/shape", json!(vec![1; 100])), &["100 dimensions"]),
        ("too few elements", with("/inputs/0/data", json!([1, 2, 3])), &["has 3 elements", "takes 64"]),
        ("too many elements", with("/inputs/0/data", json!(vec![1; 65])), &["more elements"]),
        ("nested otherwise", with("/inputs/0/data", json!(vec![vec![0; 4]; 16])), &["nested otherwise"]),
        ("mixed nesting", with("/inputs/0/data", json!([1, [2]])), &["nested otherwise"]),
        ("a value that does not fit", with("/inputs/0/data", json!(vec![256; 64])), &["256", "UINT8"]),
        ("a fraction", with("/inputs/0/data", json!(vec![0.5; 64])), &["0.5", "UINT8"]),
        ("a string", with("/inputs/0/data", json!(vec!["a"; 64])), &["string", "UINT8"]),
        ("null", with("/inputs/0/data", json!(vec![Value::Null; 64])), &["null"]),
        ("an object", with("/inputs/0/data", json!({"a": 1})), &["map"]),
        ("no data", br#"{"inputs":[{"name":"image","datatype":"UINT8","shape":[1,8,8]}]}"#.to_vec(), &["has no data"]),
        ("binary data", br#"{"inputs":[{"name":"image","datatype":"UINT8","shape":[1,8,8],"parameters":{"binary_data_size":64}}]}"#.to_vec(), &["binary tensor extension"]),
        ("binary answer", with("", json!({"inputs": good["inputs"], "outputs": [{"name": "label", "parameters": {"binary_data": true}}]})), &["outputs[0]", "binary tensor extension"]),
        ("unknown output", with("", json!({"inputs": good["inputs"], "outputs": [{"name": "digit"}]})), &["digit", "probabilities, label"]),
        ("what the module refuses", with("/inputs/0/data", json!(vec![17; 64])), &["image"]),
    ];
    for (name, body, words) in cases {
        let answer = client.post("/v2/models/digits/infer", body).await;
        assert_eq!(
            answer.status(),
            StatusCode::BAD_REQUEST,
            "{name}: {answer:?}"
        );
        let error = answer.body()["error"]
            .as_str()
            .unwrap_or_else(|| panic!("{name}: {answer:?}"));
        for word in words {
            assert!(error.contains(word), "{name}: {error}");
        }
    }
    assert_eq!(label(client.infer(&good).await.body()), 4);
    assert_eq!(host.stats().await[&slot].errors, 0);
}

#[tokio::test]
async fn wrong_paths_methods_and_forms_have_their_own_codes() {
    let (host, _) = Host::serving(&Package::good()).await;
    let mut client = Client::new(host.address);
    let body = request(&image()).to_string();
    let post = |path: &str| (http::Method::POST, path.to_owned(), None);
    let cases = [
        (post("/v2/models/other/infer"), StatusCode::NOT_FOUND),
        (
            post("/v2/models/digits/versions/other/infer"),
            StatusCode::NOT_FOUND,
        ),
        (
            post("/v2/models/digits/versions/digits-1.0.0/infer"),
            StatusCode::OK,
        ),
        (post("/v1/predict"), StatusCode::NOT_FOUND),
        (post("/"), StatusCode::NOT_FOUND),
        (post("/v2/models/digits"), StatusCode::METHOD_NOT_ALLOWED),
        (
            post("/v2/repository/models/digits/load"),
            StatusCode::METHOD_NOT_ALLOWED,
        ),
        (
            (
                http::Method::GET,
                "/v2/models/digits/infer".to_owned(),
                None,
            ),
            StatusCode::METHOD_NOT_ALLOWED,
        ),
        (
            (
                http::Method::POST,
                "/v2/models/digits/infer".to_owned(),
                Some(("content-type", "application/octet-stream")),
            ),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
        (
            (
                http::Method::POST,
                "/v2/models/digits/infer".to_owned(),
                Some(("inference-header-content-length", "10")),
            ),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
    ];
    for ((method, path, header), wanted) in cases {
        let mut request = http::Request::builder()
            .method(method)
            .uri(&path)
            .header("host", "test");
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request
            .body(http_body_util::Full::new(body.clone().into()))
            .unwrap();
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.status(), wanted, "{path}: {answer:?}");
        assert_eq!(
            wanted == StatusCode::OK,
            answer.body()["error"].is_null(),
            "{path}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_are_named_in_the_error() {
    use http::Method;
    let (host, _) = Host::serving(&Package::good()).await;
    let mut client = Client::new(host.address);
    let body = request(&image()).to_string();
    let (read, write) = ("GET, HEAD", "POST");
    let version = "/v2/models/digits/versions/digits-1.0.0";
    let cases = [
        (Method::GET, "/".to_owned(), None),
        (Method::GET, "/metrics".to_owned(), None),
        (Method::POST, "/v2/models/digits/predict".to_owned(), None),
        // Not the place to infer, whatever the method.
        (Method::POST, "/v2/models/digits/x/infer".to_owned(), None),
        (Method::GET, "/v2/repository/index".to_owned(), None),
        (Method::POST, "/v2".to_owned(), Some(read)),
        (Method::DELETE, "/v2/health/live".to_owned(), Some(read)),
        (Method::POST, "/v2/models".to_owned(), Some(read)),
        (Method::POST, "/v2/models/infer".to_owned(), Some(read)),
        (Method::POST, format!("{version}/ready"), Some(read)),
        (
            Method::GET,
            "/v2/models/digits/infer".to_owned(),
            Some(write),
        ),
        (Method::PUT, format!("{version}/infer"), Some(write)),
        (
            Method::POST,
            "/v2/repository/models/digits/unload".to_owned(),
            Some(""),
        ),
    ];
    for (method, path, allowed) in cases {
        let request = http::Request::builder()
            .method(&method)
            .uri(&path)
            .header("host", "test")
            .body(http_body_util::Full::new(body.clone().into()))
            .unwrap();
        let answer = client.send(request).await.unwrap();
        let error = answer.body()["error"]
            .as_str()
            .unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
        assert!(error.contains(&path), "{method} {path}: {error}");
        assert_eq!(answer.headers()["content-type"], "application/json");
        let allow = answer.headers().get("allow").map(|allow| allow.to_str());
        assert_eq!(allow.transpose().unwrap(), allowed, "{method} {path}");
        match allowed {
            None => assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}"),
            Some(allowed) => {
                assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
                let named = allowed.is_empty() || error.contains(method.as_str());
                assert!(named && error.contains(allowed), "{method} {path}: {error}");
            }
        }
    }
}
