use super::super::encode;
use super::super::room::Rooms;
use super::*;
use crate::host::slot::NoAnswer;

const HEAD: encode::Head<'static> = encode::Head {
    model: "m",
    version: "v",
    id: None,
};

fn encoded(tensor: Tensor, bytes_max: u64) -> Result<Vec<u8>, NoAnswer> {
    let mut room = Rooms::new(1 << 20).enter();
    let mut json = room.collect(bytes_max);
    encode::answer(&HEAD, &[("x".to_owned(), tensor)], None, &mut json)?;
    Ok(json.finish())
}

fn parse(datatype: &str, shape: &str, data: &str) -> Result<Vec<u8>, String> {
    let body = format!(
        r#"{{"inputs":[{{"data":{data},"name":"x","datatype":"{datatype}","shape":{shape}}}]}}"#
    );
    let budget = TensorBudget::new(1 << 20);
    let request = request(body.as_bytes(), &budget).map_err(|mistake| mistake.to_string())?;
    Ok(request.inputs[0].1.data().to_vec())
}

#[test]
fn every_datatype_is_read_into_its_own_bytes() {
    let cases: [(&str, &str, Vec<u8>); 14] = [
        ("BOOL", "[true,false,1]", vec![1, 0, 1]),
        ("UINT8", "[0,1,255]", vec![0, 1, 255]),
        ("INT8", "[-128,0,127]", vec![128, 0, 127]),
        (
            "UINT16",
            "[0,1,65535]",
            [0u16, 1, 65535].map(u16::to_le_bytes).concat(),
        ),
        (
            "INT16",
            "[-32768,0,1]",
            [-32768i16, 0, 1].map(i16::to_le_bytes).concat(),
        ),
        (
            "UINT32",
            "[0,1,4294967295]",
            [0u32, 1, u32::MAX].map(u32::to_le_bytes).concat(),
        ),
        (
            "INT32",
            "[-1,0,1]",
            [-1i32, 0, 1].map(i32::to_le_bytes).concat(),
        ),
        (
            "UINT64",
            "[0,1,18446744073709551615]",
            [0u64, 1, u64::MAX].map(u64::to_le_bytes).concat(),
        ),
        (
            "INT64",
            "[-9223372036854775808,0,1]",
            [i64::MIN, 0, 1].map(i64::to_le_bytes).concat(),
        ),
        (
            "FP16",
            "[1,-2.5,0.1]",
            [0x3c00u16, 0xc100, 0x2e66].map(u16::to_le_bytes).concat(),
        ),
        (
            "BF16",
            "[1,-2.5,0.1]",
            [0x3f80u16, 0xc020, 0x3dcd].map(u16::to_le_bytes).concat(),
        ),
        (
            "FP32",
            "[1,-2.5,0.1]",
            [1f32, -2.5, 0.1].map(f32::to_le_bytes).concat(),
        ),
        (
            "FP64",
            "[1,-2.5,0.1]",
            [1f64, -2.5, 0.1].map(f64::to_le_bytes).concat(),
        ),
        (
            "BYTES",
            r#"["a","","é\n"]"#,
            b"\x01\0\0\0a\0\0\0\0\x03\0\0\0\xc3\xa9\n".to_vec(),
        ),
    ];
    assert_eq!(cases.len(), Datatype::ALL.len());
    for (datatype, data, wanted) in cases {
        assert_eq!(parse(datatype, "[3]", data), Ok(wanted), "{datatype}");
    }
}

#[test]
fn a_value_outside_its_datatype_is_named() {
    for (datatype, value) in [
        ("BOOL", "2"),
        ("UINT8", "-1"),
        ("INT8", "128"),
        ("UINT64", "-1"),
        ("INT64", "9223372036854775808"),
        ("FP16", "70000"),
        ("FP32", "1e39"),
        ("BF16", "1e39"),
        ("BYTES", "7"),
        ("UINT8", "true"),
        ("FP32", "\"1\""),
    ] {
        let error = parse(datatype, "[1]", &format!("[{value}]")).unwrap_err();
        assert!(error.contains("inputs[0] (x).data"), "{error}");
        assert!(
            error.contains(datatype) || error.contains("string"),
            "{error}"
        );
    }
}

#[test]
fn nested_data_is_read_row_major_when_it_is_as_deep_as_the_shape() {
    assert_eq!(
        parse("UINT8", "[2,3]", "[[1,2,3],[4,5,6]]"),
        Ok(vec![1, 2, 3, 4, 5, 6])
    );
    assert_eq!(
        parse("UINT8", "[2,3]", "[1,2,3,4,5,6]"),
        Ok(vec![1, 2, 3, 4, 5, 6])
    );
    assert_eq!(parse("UINT8", "[]", "[7]"), Ok(vec![7]));
    assert_eq!(parse("UINT8", "[0,3]", "[]"), Ok(vec![]));
    for data in [
        "[[1,2],[3,4],[5,6]]",
        "[[1,2,3,4,5,6]]",
        "[[[1,2,3],[4,5,6]]]",
        "[[1,2,3],4,5,6]",
        "7",
    ] {
        assert!(parse("UINT8", "[2,3]", data).is_err(), "{data}");
    }
}

#[test]
fn an_endless_list_is_left_at_the_first_element_too_many() {
    let data = format!("[{}]", vec!["1"; 100_000].join(","));
    let error = parse("UINT8", "[2]", &data).unwrap_err();
    assert!(
        error.contains("more elements than shape [2] takes"),
        "{error}"
    );
}

#[test]
fn a_shape_reserves_no_more_than_its_text_could_fill() {
    let error = parse("FP64", "[4000000000]", "[1]").unwrap_err();
    assert!(error.contains("has 1 elements"), "{error}");
}

#[test]
fn what_is_encoded_decodes_to_the_same_bytes() {
    for (datatype, data) in [
        ("BOOL", "[true,false]"),
        ("INT64", "[-9223372036854775808,9223372036854775807]"),
        ("FP16", "[0.099975586,-65504]"),
        ("FP32", "[0.1,-3.4028235e38]"),
        ("FP64", "[0.1,5e-324]"),
        ("BYTES", r#"["\"quoted\"","é"]"#),
    ] {
        let bytes = parse(datatype, "[2]", data).unwrap();
        let budget = TensorBudget::new(1 << 20);
        let buffer = budget.charge(Bytes::from(bytes.clone())).unwrap();
        let tensor = Tensor::new(Datatype::parse(datatype).unwrap(), &[2], buffer).unwrap();
        let json = encoded(tensor, 1 << 20).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["outputs"][0]["datatype"], datatype);
        assert_eq!(
            parse(datatype, "[2]", &json["outputs"][0]["data"].to_string()),
            Ok(bytes),
            "{json}"
        );
    }
}

#[test]
fn a_number_that_json_cannot_carry_is_an_error_that_names_it() {
    let budget = TensorBudget::new(1 << 20);
    let bytes = [1f32, f32::NAN].map(f32::to_le_bytes).concat();
    let tensor = Tensor::new(
        Datatype::Fp32,
        &[2],
        budget.charge(Bytes::from(bytes)).unwrap(),
    )
    .unwrap();
    let words = "output \"x\": element 1 is not a finite number, which JSON cannot carry";
    assert_eq!(
        encoded(tensor, 1 << 20),
        Err(NoAnswer::Failed(words.to_owned()))
    );
}

#[test]
fn an_answer_over_its_limit_is_too_large_and_one_without_room_is_turned_away() {
    let budget = TensorBudget::new(1 << 20);
    let zeros = budget.charge(Bytes::from(vec![0; 4096])).unwrap();
    let tensor = Tensor::new(Datatype::Uint8, &[4096], zeros).unwrap();
    let rooms = Rooms::new(4096);
    let mut room = rooms.enter();
    let mut json = room.collect(1 << 20);
    let outputs = [("x".to_owned(), tensor.clone())];
    let answer = encode::answer(&HEAD, &outputs, None, &mut json);
    assert_eq!(answer, Err(NoAnswer::NoRoom));
    let Err(NoAnswer::TooLarge(words)) = encoded(tensor, 8000) else {
        panic!("not too large");
    };
    assert!(words.contains("more than 8000 bytes"), "{words}");
}

proptest::proptest! {
    #[test]
    fn no_body_makes_the_parser_panic(body: Vec<u8>) {
        let _ = request(&body, &TensorBudget::new(1 << 20));
    }

    #[test]
    fn no_data_makes_the_reader_panic(data in "[\\[\\]0-9,.e\" a-]{0,40}", shape in "\\[[0-9,]{0,8}\\]") {
        for datatype in Datatype::ALL {
            let _ = parse(datatype.name(), &shape, &data);
        }
    }
}
