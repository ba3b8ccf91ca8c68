//! Where a request may go: the registry's own origin, and elsewhere only as far as that is safe.
//!
//! A registry is told by whoever wrote a reference, and says by itself where redirects and further pages
//! are. Neither may make a device or a hub speak without TLS or to what only it can reach.

use std::net::IpAddr;

use reqwest::Url;
use reqwest::header::{HeaderMap, LINK, LOCATION};

use super::Client;
use super::error::ClientError;
use super::transport::{Call, refused};
use crate::reference::is_loopback;
use crate::text::clip;

impl Client {
    /// The registry's own origin: TLS, unless it is on this machine or was named by a person.
    pub(super) fn home(&self, call: &Call<'_>) -> Result<Url, ClientError> {
        let host = self
            .inner
            .options
            .mirrors
            .api_host(call.repository.registry());
        let scheme = if self.allows_plain_http(host) {
            "http"
        } else {
            "https"
        };
        let home = Url::parse(&format!("{scheme}://{host}/"))
            .map_err(|error| refused(call, format!("{host} makes no URL: {error}")))?;
        let options = &self.inner.options;
        if options.internal_only_if_named
            && is_internal(&home)
            && !options.plain_http.contains(host)
        {
            return Err(refused(
                call,
                format!(
                    "{host} is an internal address of the machine that asks; \
                     --plain-http {host} there allows it as a registry"
                ),
            ));
        }
        Ok(home)
    }

    /// The host whose credentials a call may carry: a mirror never sees those of the registry it stands for.
    pub(super) fn credential_host<'a>(&'a self, call: &Call<'a>) -> &'a str {
        let registry = call.repository.registry();
        self.inner.options.mirrors.get(registry).unwrap_or(registry)
    }

    fn allows_plain_http(&self, host: &str) -> bool {
        let options = &self.inner.options;
        (is_loopback(host) && !options.internal_only_if_named) || options.plain_http.contains(host)
    }

    /// Where a redirect leads, if a read may follow it there.
    pub(super) fn redirected(
        &self,
        call: &Call<'_>,
        home: &Url,
        from: &Url,
        headers: &HeaderMap,
    ) -> Result<Url, ClientError> {
        let location = headers
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| from.join(value).ok())
            .ok_or_else(|| refused(call, "a redirect without a readable location".to_owned()))?;
        if !call.is_read() {
            return Err(refused(call, "a redirect of a write".to_owned()));
        }
        self.check_elsewhere(call, home, &location, "redirect")?;
        Ok(location)
    }

    /// May a registry send us to that URL? TLS stays TLS, and the outside may not point inside.
    pub(super) fn check_elsewhere(
        &self,
        call: &Call<'_>,
        home: &Url,
        url: &Url,
        kind: &str,
    ) -> Result<(), ClientError> {
        let to = authority(url);
        let plain = match url.scheme() {
            "https" => false,
            "http" => true,
            other => {
                return Err(refused(
                    call,
                    format!("{kind} to {to} by {}", clip(other, 20)),
                ));
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused(
                call,
                format!("{kind} to {to} with credentials in its URL"),
            ));
        }
        if plain && (home.scheme() == "https" || !self.allows_plain_http(&to)) {
            return Err(refused(call, format!("{kind} to {to} without TLS")));
        }
        if is_internal(url) && !is_internal(home) {
            return Err(refused(
                call,
                format!(
                    "{kind} from {} to {to}, an internal address",
                    authority(home)
                ),
            ));
        }
        Ok(())
    }
}

/// The target of `Link: <…>; rel="next"`, as the distribution specification has it (RFC 5988).
pub(super) fn next_page(headers: &HeaderMap, from: &Url) -> Option<Url> {
    headers.get_all(LINK).iter().find_map(|value| {
        let (target, parameters) = value
            .to_str()
            .ok()?
            .trim()
            .strip_prefix('<')?
            .split_once('>')?;
        let is_next = |parameter: &str| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "next"
            })
        };
        if !parameters.split(';').any(is_next) {
            return None;
        }
        let url = from.join(target).ok()?;
        (url.username().is_empty() && url.password().is_none()).then_some(url)
    })
}

/// `host[:port]` as a reference would write it.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Same scheme, host and port: the only place where credentials go.
pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// This machine, or its link: metadata services live there.
fn is_internal(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    if is_loopback(host) {
        return true;
    }
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    match address {
        Ok(IpAddr::V4(address)) => address.is_link_local() || address.is_unspecified(),
        Ok(IpAddr::V6(address)) => {
            address.is_unicast_link_local()
                || address.is_unspecified()
                || address
                    .to_ipv4_mapped()
                    .is_some_and(|v4| v4.is_loopback() || v4.is_link_local())
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Client, ClientOptions};
    use super::{Call, Url, same_origin};

    fn client() -> Client {
        let mut options = ClientOptions::default();
        options
            .plain_http
            .insert("plain.example.com:5000".to_owned());
        options
            .mirrors
            .insert("mirrored.example.com", "127.0.0.1:5000");
        Client::new(options).unwrap()
    }

    fn home(registry: &str) -> String {
        let repository = format!("{registry}/models/digits").parse().unwrap();
        let client = client();
        let call = Call::get(&repository, "manifests/v1");
        client.home(&call).unwrap().to_string()
    }

    fn may_go(registry: &str, url: &str) -> bool {
        let repository = format!("{registry}/models/digits").parse().unwrap();
        let client = client();
        let call = Call::get(&repository, "manifests/v1");
        let home = client.home(&call).unwrap();
        client
            .check_elsewhere(&call, &home, &Url::parse(url).unwrap(), "redirect")
            .is_ok()
    }

    #[test]
    fn plain_http_is_spoken_to_this_machine_and_to_named_hosts_only() {
        assert_eq!(
            home("registry.example.com"),
            "https://registry.example.com/"
        );
        assert_eq!(home("plain.example.com"), "https://plain.example.com/");
        assert_eq!(
            home("plain.example.com:5000"),
            "http://plain.example.com:5000/"
        );
        assert_eq!(home("127.0.0.1:5000"), "http://127.0.0.1:5000/");
        assert_eq!(home("docker.io"), "https://registry-1.docker.io/");
        assert_eq!(home("mirrored.example.com"), "http://127.0.0.1:5000/");
    }

    #[test]
    fn who_fetches_for_others_takes_internal_registries_only_by_name() {
        let mut options = ClientOptions {
            internal_only_if_named: true,
            ..ClientOptions::default()
        };
        options.plain_http.insert("127.0.0.1:5000".to_owned());
        let client = Client::new(options).unwrap();
        let home = |registry: &str| {
            let repository = format!("{registry}/models/digits").parse().unwrap();
            let call = Call::get(&repository, "manifests/v1");
            client
                .home(&call)
                .map(|home| home.to_string())
                .map_err(|error| error.to_string())
        };
        assert_eq!(home("127.0.0.1:5000").unwrap(), "http://127.0.0.1:5000/");
        assert_eq!(
            home("registry.example.com").unwrap(),
            "https://registry.example.com/"
        );
        for inside in [
            "localhost:5000",
            "127.0.0.1:5001",
            "127.1.2.3:80",
            "[::1]:5000",
            "169.254.169.254",
            "0.0.0.0:5000",
        ] {
            let error = home(inside).unwrap_err();
            assert!(error.contains(&format!("--plain-http {inside}")), "{error}");
        }
        let repository = "127.0.0.1:5000/models/digits".parse().unwrap();
        let call = Call::get(&repository, "manifests/v1");
        let home = client.home(&call).unwrap();
        let elsewhere = Url::parse("http://127.0.0.1:10248/healthz").unwrap();
        let went = client.check_elsewhere(&call, &home, &elsewhere, "redirect");
        assert!(went.is_err(), "a redirect to another port of this machine");
    }

    #[test]
    fn a_registry_outside_may_not_send_a_device_inside_or_off_tls() {
        let outside = "registry.example.com";
        assert!(may_go(outside, "https://cdn.example.com/blob?signature=x"));
        for bad in [
            "http://cdn.example.com/blob",
            "http://127.0.0.1/blob",
            "https://127.0.0.1/blob",
            "https://localhost/blob",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/blob",
            "https://[fe80::1]/blob",
            "https://[::ffff:127.0.0.1]/blob",
            "https://0.0.0.0/blob",
            "https://user:secret@cdn.example.com/blob",
            "ftp://cdn.example.com/blob",
        ] {
            assert!(!may_go(outside, bad), "{bad}");
        }
        assert!(may_go("127.0.0.1:5000", "http://127.0.0.1:5001/blob"));
        assert!(!may_go("127.0.0.1:5000", "http://cdn.example.com/blob"));
    }

    #[test]
    fn a_mirror_never_sees_the_credentials_of_the_registry_it_stands_for() {
        let repository = "mirrored.example.com/models/digits".parse().unwrap();
        let client = client();
        let call = Call::get(&repository, "manifests/v1");
        assert_eq!(client.credential_host(&call), "127.0.0.1:5000");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| same_origin(&Url::parse(a).unwrap(), &Url::parse(b).unwrap());
        assert!(same(
            "https://r.example.com/a",
            "https://r.example.com:443/b"
        ));
        assert!(!same("https://r.example.com/", "http://r.example.com/"));
        assert!(!same(
            "https://r.example.com/",
            "https://r.example.com:444/"
        ));
        assert!(!same(
            "https://r.example.com/",
            "https://r.example.com.evil.example.com/"
        ));
    }
}
