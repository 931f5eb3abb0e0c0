//! Kubernetes' quantities: `128Mi`, `1.5G`, `1e3`, `500m`
//! (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>).

use serde_json::Value;

/// Bytes of a quantity, rounded up; none where it is none.
pub(super) fn bytes(value: &Value) -> Option<u64> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            10_f64.powi(exponent)
        }
    };
    let bytes = (number * factor).ceil();
    // Memory of a machine is far below the numbers that a float holds exactly.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (bytes >= 0.0).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::bytes;
    use serde_json::json;

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        for (text, expected) in [
            ("128Mi", 134_217_728),
            ("1.5Gi", 1_610_612_736),
            ("1G", 1_000_000_000),
            ("128974848000m", 128_974_848),
            ("129e6", 129_000_000),
            ("1", 1),
            ("1m", 1),
        ] {
            assert_eq!(bytes(&json!(text)), Some(expected), "{text}");
        }
        assert_eq!(bytes(&json!(1024)), Some(1024));
        for wrong in [json!("a lot"), json!("1Xi"), json!("-1"), json!(null)] {
            assert_eq!(bytes(&wrong), None, "{wrong}");
        }
    }
}
