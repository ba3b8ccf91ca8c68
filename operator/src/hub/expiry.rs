//! When a credential ends.
//!
//! Owns the reading of two dates: a client certificate's `notAfter` and a token's `exp`. Neither is judged, and no
//! signature is checked: it is our own credential, and whoever lied about its end would only be warned too early
//! or too late.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use k8s_openapi::jiff::Timestamp;
use kube::config::AuthInfo;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use x509_cert::Certificate;

/// When what a client shows ends, whichever of its credentials ends first; none when nothing in them says so.
pub(crate) fn of(auth: &AuthInfo) -> Option<Timestamp> {
    let token = auth.token.as_ref();
    let token = token.and_then(|token| of_token(token.expose_secret()));
    let certificate = auth.client_certificate_data.as_deref();
    let certificate = certificate.and_then(of_certificate);
    token.into_iter().chain(certificate).min()
}

/// The first certificate is the client's own; those after it only vouch for it.
fn of_certificate(base64: &str) -> Option<Timestamp> {
    let pem = STANDARD.decode(base64.trim()).ok()?;
    let chain = Certificate::load_pem_chain(&pem).ok()?;
    let validity = chain.first()?.tbs_certificate().validity();
    let seconds = validity.not_after.to_unix_duration().as_secs();
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

fn of_token(token: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let claims = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    Timestamp::from_second(claims.exp).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn token(claims: &serde_json::Value) -> String {
        let part = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        format!(
            "{}.{}.c2lnbmVk",
            part(&json!({"alg": "RS256"})),
            part(claims)
        )
    }

    fn certificate(year: i32) -> String {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 2, 3);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        STANDARD.encode(pem)
    }

    fn check(token: Option<String>, certificate: Option<String>) -> Option<String> {
        let auth = AuthInfo {
            token: token.map(Into::into),
            client_certificate_data: certificate,
            ..AuthInfo::default()
        };
        of(&auth).map(|end| end.to_string())
    }

    #[test]
    fn the_end_of_a_token_or_certificate_is_read_and_the_earlier_one_counts() {
        let in_2030 = token(&json!({"sub": "x", "exp": 1_893_456_000}));
        let ends = |text: &str| Some(text.to_owned());
        assert_eq!(
            check(Some(in_2030.clone()), None),
            ends("2030-01-01T00:00:00Z")
        );
        assert_eq!(
            check(None, Some(certificate(2028))),
            ends("2028-02-03T00:00:00Z")
        );
        // Beyond 2049 the date has another form.
        assert_eq!(
            check(None, Some(certificate(2077))),
            ends("2077-02-03T00:00:00Z")
        );
        let both = check(Some(in_2030), Some(certificate(2028)));
        assert_eq!(both, ends("2028-02-03T00:00:00Z"));
    }

    #[test]
    fn what_says_nothing_of_an_end_has_none() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(check(None, None), None);
        for odd in ["", "opaque", "a.b.c", "a.%.c", ".."] {
            assert_eq!(check(text(odd), None), None, "{odd}");
            assert_eq!(check(None, text(odd)), None, "{odd}");
        }
        for claims in [json!({}), json!({"exp": "soon"}), json!({"exp": i64::MAX})] {
            assert_eq!(check(Some(token(&claims)), None), None, "{claims}");
        }
        let no_der =
            STANDARD.encode("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        assert_eq!(check(None, Some(no_der)), None);
    }
}
