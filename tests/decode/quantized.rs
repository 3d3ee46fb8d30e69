//! Embeddings in fewer bits and dimensions: against sentence-transformers.

use minilm::decode::quantized::{Precision, Ranges, quantize};
use serde::Deserialize;

use super::common::compare::Table;
use super::load;

#[derive(Deserialize)]
pub struct QuantizedCase {
    precision: String,
    rows: Vec<Vec<f32>>,
    ranges: Option<[Vec<f32>; 2]>,
    expected: Vec<Vec<i16>>,
}

#[test]
fn quantized_rows_are_those_of_sentence_transformers() {
    let mut table = Table::new("quantized rows");
    for case in &load().quantized {
        let precision = match case.precision.as_str() {
            "int8" => Precision::Int8,
            "uint8" => Precision::Uint8,
            "binary" => Precision::Binary,
            "ubinary" => Precision::Ubinary,
            other => panic!("{other}"),
        };
        let name = format!("{:?} of {} x {}, ranges given: {}", precision, case.rows.len(), case.rows[0].len(), case.ranges.is_some());
        let ranges = case.ranges.clone().map(|[min, max]| Ranges { min, max });
        let found = quantize(&case.rows, precision, ranges.as_ref()).unwrap();
        let values: Vec<i16> = match found.as_signed() {
            Some(values) => values.iter().map(|&value| value.into()).collect(),
            None => found.as_bytes().iter().map(|&value| value.into()).collect(),
        };
        table.equal(&name, &values, &case.expected.concat());
        table.equal(&name, &[found.columns(), found.rows().len()], &[case.expected[0].len(), case.expected.len()]);
        table.equal(&name, &found.rows().collect::<Vec<_>>().concat(), &found.clone().into_bytes());
        let own = Ranges::of(&case.rows).unwrap();
        table.check(
            &name,
            ranges.is_some() || quantize(&case.rows, precision, Some(&own)).unwrap() == found,
            "other values with the rows' own ranges",
        );
    }
    table.finish();
}

#[test]
fn rows_and_ranges_that_do_not_fit_are_refused() {
    let rows = vec![vec![0.0f32, 1.0], vec![1.0, 2.0]];
    let ranges = |min: &[f32], max: &[f32]| Some(Ranges { min: min.to_vec(), max: max.to_vec() });
    let cases = [
        (vec![], None, "there are no rows"),
        (vec![vec![]], None, "row 0 has no values"),
        (vec![vec![1.0], vec![1.0, 2.0]], None, "row 1 has 2 values, expected 1"),
        (vec![vec![1.0], vec![f32::NAN]], None, "row 1: expected finite values, found NaN"),
        (vec![vec![1.0]], None, "one row spans no ranges"),
        (rows.clone(), ranges(&[0.0], &[1.0, 2.0]), "1 least and 2 largest values, expected 2"),
        (
            rows.clone(),
            ranges(&[0.0, 3.0], &[1.0, 2.0]),
            "dimension 1 of the ranges: expected a least and a largest finite value, found 3 and 2",
        ),
        (rows.clone(), ranges(&[0.0, f32::NAN], &[1.0, 2.0]), "dimension 1 of the ranges"),
    ];
    for (rows, ranges, expected) in cases {
        let message = quantize(&rows, Precision::Int8, ranges.as_ref()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    assert!(quantize([[1.0f32]], Precision::Ubinary, None).is_ok(), "bits need no ranges");
}
