use super::*;

fn config(server: &str, user: &str) -> Kubeconfig {
    Kubeconfig::from_yaml(&format!(
        "{{apiVersion: v1, kind: Config, current-context: here,
          contexts: [{{name: here, context: {{cluster: c, user: u}}}}],
          clusters: [{{name: c, cluster: {{server: '{server}', certificate-authority-data: Q0E=}}}}],
          users: [{{name: u, user: {user}}}]}}"
    ))
    .unwrap()
}

fn check_refused(user: &str, field: &str) {
    let chosen = choose(&config("https://h:1", user), None).unwrap();
    let error = credential(&chosen.user).unwrap_err().to_string();
    assert!(error.contains(field), "{error}");
}

#[test]
fn what_would_run_a_program_or_read_a_file_elsewhere_is_refused_by_its_name() {
    check_refused("{exec: {apiVersion: v1, command: sh}}", "users[].user.exec");
    check_refused("{auth-provider: {name: gcp}}", "users[].user.auth-provider");
    check_refused("{tokenFile: /t}", "users[].user.tokenFile");
    check_refused("{token: t, as: admin}", "users[].user.as");
    check_refused("{token: t, unheard-of: 1}", "users[].user.unheard-of");
    check_refused("{username: a, password: b}", "users[].user.");
    check_refused("{}", "neither a token nor");
    check_refused("{client-certificate-data: Q0E=}", "neither a token nor");
}

#[test]
fn empty_fields_that_kubectl_reads_as_absent_do_not_count() {
    let empty = "tokenFile: '', client-certificate: '', client-key: '', username: '', password: '', as: '', \
                 as-uid: '', as-groups: [], as-user-extra: {}, auth-provider: null, exec: null, unheard-of: ''";
    let user = format!("{{token: t, client-certificate-data: '', client-key-data: '', {empty}}}");
    let chosen = choose(&config("https://h:1", &user), None).unwrap();
    let kept = credential(&chosen.user).unwrap();
    assert_eq!(Value::Object(kept), json!({"token": "t"}));
    // The other way round: certificates beside an empty token.
    let user =
        format!("{{token: '', client-certificate-data: Q0E=, client-key-data: S0U=, {empty}}}");
    let chosen = choose(&config("https://h:1", &user), None).unwrap();
    let kept = credential(&chosen.user).unwrap();
    assert_eq!(kept.len(), 2, "{kept:?}");
    // Nothing but empty fields is no credential.
    check_refused(&format!("{{token: '', {empty}}}"), "neither a token nor");
}

#[test]
fn a_pushed_file_with_empty_fields_gives_the_same_as_one_without() {
    let folder = tempfile::tempdir().unwrap();
    let made = |name: &str, cluster: &str, user: &str| {
        let path = folder.path().join(name);
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: here,
              contexts: [{{name: here, context: {{cluster: c, user: u, namespace: ''}}}}],
              clusters: [{{name: c, cluster: {{server: 'https://h:1'{cluster}}}}}],
              users: [{{name: u, user: {{token: t{user}}}}}]}}"
        );
        std::fs::write(&path, text).unwrap();
        let chosen = choose(&read(&path).unwrap(), None).unwrap();
        let endpoint = endpoint(&chosen.cluster, None, "the hub").unwrap();
        standalone(
            "site",
            &endpoint,
            Value::Object(credential(&chosen.user).unwrap()),
        )
        .unwrap()
    };
    let empty = made(
        "empty",
        ", certificate-authority: '', certificate-authority-data: '', proxy-url: '', tls-server-name: ''",
        ", client-certificate: '', client-key: '', tokenFile: ''",
    );
    assert_eq!(empty, made("plain", "", ""));
}

#[test]
fn certificate_files_are_taken_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("crt"), "CERT").unwrap();
    std::fs::write(path("key"), "KEY").unwrap();
    let user = format!(
        "{{client-certificate: '{}', client-key: '{}'}}",
        path("crt"),
        path("key")
    );
    let chosen = choose(&config("https://h:1", &user), None).unwrap();
    let kept = credential(&chosen.user).unwrap();
    let endpoint = endpoint(&chosen.cluster, None, "the hub").unwrap();
    let text = standalone("site", &endpoint, Value::Object(kept)).unwrap();
    let read = Kubeconfig::from_yaml(&text).unwrap();
    let again = choose(&read, None).unwrap();
    assert_eq!(
        again.user.client_certificate_data.as_deref(),
        Some("Q0VSVA==")
    );
    assert_eq!(again.user.client_certificate, None);
    assert_eq!(
        again.cluster.certificate_authority_data.as_deref(),
        Some("Q0E=")
    );
    assert!(!text.contains(folder.path().to_str().unwrap()), "{text}");
}

#[test]
fn a_loopback_server_needs_another_address() {
    for server in [
        "https://127.0.0.1:6443",
        "https://localhost:6443",
        "https://[::1]:6443",
        "https://0.0.0.0:6443",
    ] {
        let chosen = choose(&config(server, "{token: t}"), None).unwrap();
        let error = endpoint(&chosen.cluster, None, "the edge").unwrap_err();
        assert!(error.to_string().contains("give --server URL"), "{error}");
        let given = endpoint(
            &chosen.cluster,
            Some("https://hub.example:6443"),
            "the edge",
        );
        assert_eq!(given.unwrap().server, "https://hub.example:6443");
    }
    let chosen = choose(&config("https://10.0.0.1:6443", "{token: t}"), None).unwrap();
    assert!(endpoint(&chosen.cluster, None, "the edge").is_ok());
    assert!(endpoint(&chosen.cluster, Some("http://h:1"), "the edge").is_err());
    assert!(endpoint(&chosen.cluster, Some("https://"), "the edge").is_err());
}

#[test]
fn an_unchecked_server_is_refused() {
    let mut chosen = choose(&config("https://h:1", "{token: t}"), None).unwrap();
    chosen.cluster.insecure_skip_tls_verify = Some(true);
    let error = endpoint(&chosen.cluster, None, "the hub").unwrap_err();
    assert!(error.to_string().contains("insecure-skip-tls-verify"));
}

#[test]
fn a_context_that_is_not_there_is_named() {
    let error = choose(&config("https://h:1", "{token: t}"), Some("other")).unwrap_err();
    assert!(error.to_string().contains("\"other\""), "{error}");
}
