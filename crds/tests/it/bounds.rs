//! Every field of every kind is described and bounded.

use serde_json::Value;

/// Looks through both halves of every kind; `gap` says what a field of a half lacks.
fn check(gap: fn(&str, &Value) -> Option<&'static str>) {
    let mut gaps = Vec::new();
    for crd in rimward_crds::schema::crds().unwrap() {
        let schema = serde_json::to_value(&crd).unwrap();
        let root = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for half in ["spec", "status"] {
            walk(
                &root["properties"][half],
                &format!("{}.{half}", crd.spec.names.kind),
                &|node| gap(half, node),
                &mut gaps,
            );
        }
    }
    assert!(gaps.is_empty(), "{}", gaps.join("\n"));
}

fn walk(
    node: &Value,
    path: &str,
    gap: &dyn Fn(&Value) -> Option<&'static str>,
    gaps: &mut Vec<String>,
) {
    if let Some(gap) = gap(node) {
        gaps.push(format!("{path}: {gap}"));
    }
    for (name, property) in node["properties"].as_object().into_iter().flatten() {
        if property["description"].as_str().is_none_or(str::is_empty) {
            gaps.push(format!("{path}.{name}: no description"));
        }
        walk(property, &format!("{path}.{name}"), gap, gaps);
    }
    for below in ["items", "additionalProperties"] {
        if node[below].is_object() {
            walk(&node[below], &format!("{path}[]"), gap, gaps);
        }
    }
}

/// Keys of a map have no schema: only a rule can say how long they may be.
fn bounds_keys(map: &Value) -> bool {
    let rules = map["x-kubernetes-validations"].as_array();
    rules.into_iter().flatten().any(|rule| {
        let rule = rule["rule"].as_str().unwrap_or_default();
        let bound = rule.strip_prefix("self.all(key, key.size() <= ");
        bound.is_some_and(|it| it.trim_end_matches(')').parse::<u32>().is_ok())
    })
}

#[test]
fn every_list_map_and_string_is_bounded_and_every_field_described() {
    check(|_, node| match node["type"].as_str() {
        Some("array") if node["maxItems"].is_null() => Some("a list without maxItems"),
        Some("array") if node["items"]["type"].is_null() => {
            Some("a list without a type of its items")
        }
        Some("object")
            if node["additionalProperties"].is_object() && node["maxProperties"].is_null() =>
        {
            Some("a map without maxProperties")
        }
        Some("object") if node["additionalProperties"].is_object() && !bounds_keys(node) => {
            Some("a map without a rule that bounds its keys")
        }
        Some("string")
            if node["maxLength"].is_null()
                && node["enum"].is_null()
                && node["format"] != "date-time" =>
        {
            Some("a string without maxLength")
        }
        _ => None,
    });
}

#[test]
fn every_number_of_a_spec_has_a_range_and_none_is_a_float() {
    check(|half, node| match node["type"].as_str() {
        Some("number") => Some("a float"),
        Some("integer") if !matches!(node["format"].as_str(), Some("int32" | "int64")) => {
            Some("a format that the API server does not know")
        }
        Some("integer")
            if half == "spec" && (node["minimum"].is_null() || node["maximum"].is_null()) =>
        {
            Some("an integer without minimum and maximum")
        }
        _ if node["nullable"] == true => Some("a null would pass the schema and not parse"),
        _ => None,
    });
}

#[test]
fn every_list_says_how_it_is_merged() {
    check(|_, node| match node["type"].as_str() {
        Some("array") if node["x-kubernetes-list-type"].is_null() => {
            Some("a list without x-kubernetes-list-type")
        }
        Some("array")
            if node["x-kubernetes-list-type"] == "map"
                && node["x-kubernetes-list-map-keys"].is_null() =>
        {
            Some("a map without its keys")
        }
        _ => None,
    });
}

/// A column of that name is read by eye and by scripts: one word of the closed list, as in every kind of Kubernetes.
#[test]
fn every_column_shows_what_its_header_says() {
    for crd in rimward_crds::schema::crds().unwrap() {
        for column in crd.spec.versions[0]
            .additional_printer_columns
            .iter()
            .flatten()
        {
            let field = column.json_path.rsplit('.').next().unwrap();
            for word in ["reason", "message", "status"] {
                let headed = column.name.eq_ignore_ascii_case(word);
                let shown = field == word && word != "status";
                assert!(
                    if headed { field == word } else { !shown },
                    "{}: column {} shows {}",
                    crd.spec.names.kind,
                    column.name,
                    column.json_path
                );
            }
        }
    }
}

#[test]
fn a_status_never_written_does_not_look_finished() {
    for crd in rimward_crds::schema::crds().unwrap() {
        let schema = serde_json::to_value(&crd).unwrap();
        let status =
            &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        assert_eq!(
            status["default"],
            serde_json::json!({"observedGeneration": -1}),
            "{}",
            crd.spec.names.kind
        );
        assert!(status["required"].is_null(), "{}", crd.spec.names.kind);
        assert!(
            status["properties"]["observedGeneration"]["minimum"].is_null(),
            "{}",
            crd.spec.names.kind
        );
    }
}
