//! What a plain scalar means, as go-yaml 2 has it (`resolve.go`), which kubectl reads files with. `y` and `n` are text here:
//! there they are `true` and `false`, and no field that takes these has them written so.

use serde_yaml::Value;

/// The value of a plain scalar.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => true.into(),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => false.into(),
        ".nan" | ".NaN" | ".NAN" => f64::NAN.into(),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => f64::INFINITY.into(),
        "-.inf" | "-.Inf" | "-.INF" => f64::NEG_INFINITY.into(),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || ['+', '-', '.'].contains(&c)) => {
            number(text).unwrap_or_else(|| text.into())
        }
        _ => text.into(),
    }
}

fn number(text: &str) -> Option<Value> {
    // Underscores may part the digits of numbers.
    let digits = text.replace('_', "");
    if !text.starts_with('.')
        && let Some(number) = integer(&digits)
    {
        return Some(number);
    }
    let number: f64 = is_float(&digits).then(|| digits.parse().ok()).flatten()?;
    number.is_finite().then(|| number.into())
}

/// Decimal, `0x` for hexadecimal, `0b` for binary, `0` or `0o` for octal.
fn integer(text: &str) -> Option<Value> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let radixes = [
        ("0x", 16),
        ("0X", 16),
        ("0b", 2),
        ("0B", 2),
        ("0o", 8),
        ("0O", 8),
        ("0", 8),
    ];
    let of_prefix = radixes
        .iter()
        .find_map(|(prefix, radix)| Some((digits.strip_prefix(prefix)?, *radix)));
    let (digits, radix) = of_prefix
        .filter(|(digits, _)| !digits.is_empty())
        .unwrap_or((digits, 10));
    // Another sign is none of the number's.
    let first = digits.chars().next()?;
    let value = u64::from_str_radix(digits, radix)
        .ok()
        .filter(|_| first.is_alphanumeric())?;
    if is_negative {
        let value = 0_i64.checked_sub_unsigned(value)?;
        return Some(value.into());
    }
    Some(value.into())
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_mantissa = all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let is_exponent = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !digits.is_empty() && all_digits(digits)
    });
    is_mantissa && is_exponent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_they_mean_to_kubectl() {
        for (text, expected) in [
            ("yes", Value::Bool(true)),
            ("Off", false.into()),
            ("yEs", "yEs".into()),
            ("y", "y".into()),
            ("0", 0.into()),
            ("-1", (-1).into()),
            ("+80", 80.into()),
            ("1_000", 1000.into()),
            ("0755", 0o755.into()),
            ("0o17", 0o17.into()),
            ("0x1F", 31.into()),
            ("-0b11", (-3).into()),
            ("08", 8.0.into()),
            ("0xg", "0xg".into()),
            ("1.5", 1.5.into()),
            ("1.", 1.0.into()),
            (".5", 0.5.into()),
            ("1e3", 1000.0.into()),
            ("18446744073709551615", u64::MAX.into()),
            ("-9223372036854775808", i64::MIN.into()),
            ("18446744073709551616", 18_446_744_073_709_551_616.0.into()),
            ("1e999", "1e999".into()),
            (".", ".".into()),
            ("-", "-".into()),
            ("+-1", "+-1".into()),
            ("0x-1", "0x-1".into()),
            ("1.2.3", "1.2.3".into()),
            ("10.0.0.1", "10.0.0.1".into()),
            ("12e03", 12_000.0.into()),
            ("1e", "1e".into()),
            ("1:30", "1:30".into()),
            ("2026-01-01", "2026-01-01".into()),
            ("~", Value::Null),
            ("-.inf", f64::NEG_INFINITY.into()),
        ] {
            assert_eq!(resolve(text), expected, "{text}");
        }
    }
}
