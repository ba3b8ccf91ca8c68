use super::*;

/// Writes one length-delimited field.
fn message(number: u64, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [
        number_bytes(number << 3 | 2),
        number_bytes(body.len() as u64),
        body,
    ]
    .concat()
}

fn varint_field(number: u64, value: u64) -> Vec<u8> {
    [number_bytes(number << 3), number_bytes(value)].concat()
}

fn number_bytes(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

fn node(operator: &str, input: &str, output: &str, attributes: &[u8]) -> Vec<u8> {
    message(
        1,
        &[
            &message(1, &[input.as_bytes()]),
            &message(2, &[output.as_bytes()]),
            &message(4, &[operator.as_bytes()]),
            attributes,
        ],
    )
}

fn input(name: &str, dimensions: &[u64]) -> Vec<u8> {
    let shape: Vec<u8> = dimensions
        .iter()
        .flat_map(|size| message(1, &[&varint_field(1, *size)]))
        .collect();
    message(
        11,
        &[
            &message(1, &[name.as_bytes()]),
            &message(2, &[&message(1, &[&message(2, &[&shape])])]),
        ],
    )
}

fn model(parts: &[&[u8]]) -> Vec<u8> {
    message(7, parts)
}

#[test]
fn operators_are_found_in_a_plain_graph() {
    let file = model(&[&node("Relu", "x", "y", b""), &input("x", &[1, 3])]);
    let summary = inspect(&file).unwrap();
    assert_eq!(summary.operators.into_iter().collect::<Vec<_>>(), ["Relu"]);
}

#[test]
fn a_tensor_with_data_in_another_file_is_refused_by_name() {
    let tensor = message(
        5,
        &[
            &message(8, &[b"weights"]),
            &message(13, &[&message(1, &[b"location"])]),
        ],
    );
    assert_eq!(
        inspect(&model(&[&tensor])),
        Err(Refusal::ExternalData("weights".to_owned()))
    );
}

#[test]
fn dimensions_without_end_are_refused_before_allocation() {
    let huge = model(&[&input("x", &[1 << 30, 1 << 30])]);
    let error = inspect(&huge).unwrap_err().to_string();
    assert!(
        error.contains("x claims 1073741824 x 1073741824"),
        "{error}"
    );
    let negative = model(&[&input("x", &[u64::MAX])]);
    assert!(matches!(inspect(&negative), Err(Refusal::Oversized { .. })));
    let claimed = message(
        5,
        &[
            &varint_field(1, 1 << 30),
            &message(8, &[b"w"]),
            &message(9, &[b"1234"]),
        ],
    );
    assert!(matches!(
        inspect(&model(&[&claimed])),
        Err(Refusal::Oversized { .. })
    ));
}

#[test]
fn a_cyclic_graph_is_refused() {
    let file = model(&[&node("Relu", "b", "a", b""), &node("Relu", "a", "b", b"")]);
    assert_eq!(
        inspect(&file),
        Err(Refusal::Order {
            node: "Relu".to_owned(),
            input: "b".to_owned()
        })
    );
}

#[test]
fn graphs_too_deep_are_refused_without_recursing_on() {
    let mut graph = node("Relu", "x", "y", b"");
    for _ in 0..10_000 {
        graph = node("If", "x", "y", &message(5, &[&message(6, &[&graph])]));
    }
    assert_eq!(
        inspect(&model(&[&graph, &input("x", &[1])])),
        Err(Refusal::Depth)
    );
}

#[test]
fn a_padded_conv_integer_is_seen_in_every_way_of_writing_it() {
    let convolution = |attribute: &[u8]| {
        let file = model(&[
            &node("ConvInteger", "x", "y", &message(5, &[attribute])),
            &input("x", &[1]),
        ]);
        inspect(&file).unwrap().padded_conv_integer
    };
    let named = |name: &str, value: Vec<u8>| [message(1, &[name.as_bytes()]), value].concat();
    assert!(convolution(&named("pads", message(8, &[&[0, 0, 1, 1]]))));
    assert!(convolution(&named("pads", varint_field(8, 1))));
    assert!(convolution(&named(
        "auto_pad",
        message(4, &[b"SAME_UPPER"])
    )));
    assert!(!convolution(&named("pads", message(8, &[&[0, 0, 0, 0]]))));
    assert!(!convolution(&named("strides", message(8, &[&[1, 1]]))));
}

#[test]
fn any_truncation_is_an_error_or_a_smaller_model_never_a_panic() {
    let file = model(&[&node("Relu", "x", "y", b""), &input("x", &[1, 3])]);
    for length in 0..file.len() {
        let _ = inspect(&file[..length]);
    }
    assert!(inspect(&file[..file.len() - 1]).is_err());
}

proptest::proptest! {
    #[test]
    fn any_bytes_at_all_do_not_panic(bytes: Vec<u8>) {
        let _ = inspect(&bytes);
    }
}
