//! Numbers formatted for people.

use glue_eval::Summary;

/// `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Multiples with their prefixes, the largest first.
pub const UNITS: [(f64, &str); 7] =
    [(1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];

/// `950`, `77.0 k`, `1.1 M`, `3.5 G`, up to `4.1 Z`.
pub fn count(number: f64) -> String {
    match UNITS.into_iter().find(|(size, _)| number >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", number / size),
        None => format!("{number:.0}"),
    }
}

/// A number of parameters to the digits that it has: `77 M`, `1.1 B`.
pub fn short(number: f64) -> String {
    let units = [(1e9, " B"), (1e6, " M"), (1e3, " k"), (1.0, "")];
    let (size, unit) = units.into_iter().find(|(size, _)| number >= *size).unwrap_or((1.0, ""));
    format!("{}{unit}", number / size)
}

/// Whether a count is a number that is given to some digits, rounded up or down: 95,835,520 is 95e6 and 96e6. Zeros
/// at the end of a whole number are no digits.
pub fn rounds_to(count: u64, number: f64) -> bool {
    let given = format!("{number:e}");
    let Some((mantissa, exponent)) = given.split_once('e') else { return false };
    let decimals = mantissa.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let last_digit = exponent.parse::<i32>().map_or(0.0, |exponent| 10_f64.powi(exponent - decimals as i32));
    (count as f64 - number).abs() < last_digit
}

/// Floating-point operations: `950 FLOP`, `42.8 TFLOP`.
pub fn flop(number: f64) -> String {
    match count(number) {
        text if number < 1e3 => text + " FLOP",
        text => text + "FLOP",
    }
}

/// `4.8213` of one number, `4.8213 ± 0.0041` of several: their mean and standard deviation. `None` of none.
pub fn mean(values: &[f64], digits: usize) -> Option<String> {
    let Summary { mean, deviation } = Summary::of(values)?;
    let deviation = deviation.map_or(String::new(), |deviation| format!(" ± {deviation:.digits$}"));
    Some(format!("{mean:.digits$}{deviation}"))
}

/// ` (2 of 3)` if a mean leaves some out.
pub fn sets(counted: usize, of: usize) -> String {
    if counted == 0 || counted == of { String::new() } else { format!(" ({counted} of {of})") }
}

/// `950 B`, `4.6 GB`.
pub fn bytes(number: f64) -> String {
    match count(number) {
        text if number < 1e3 => text + " B",
        text => text + "B",
    }
}

/// `1 h 02 min`, `3 min 20 s`, `9 s`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

/// The first few names, and how many more there are.
pub fn some(names: &[String]) -> String {
    const MOST: usize = 8;
    let first: Vec<&str> = names.iter().take(MOST).map(String::as_str).collect();
    match names.len() {
        all if all <= MOST => first.join(", "),
        all => format!("{} and {} more", first.join(", "), all - MOST),
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, duration, rounds_to, short, thousands};

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([7.0, 1_500.0, 77e6, 3.52e15].map(count), ["7", "1.5 k", "77.0 M", "3.5 P"]);
        assert_eq!([7.0, 4.551e9].map(bytes), ["7 B", "4.6 GB"]);
        assert_eq!([77e6, 1.1e9, 317e6, 2.5e3, 7.0].map(short), ["77 M", "1.1 B", "317 M", "2.5 k", "7"]);
        let same =
            [(76_961_152, 77e6), (95_835_520, 95e6), (95_835_520, 96e6), (1_138_316_800, 1.1e9), (7, 7.0)];
        assert!(same.iter().all(|(count, number)| rounds_to(*count, *number)));
        let other =
            [(78_000_000, 77e6), (1_200_000_001, 1.1e9), (76_961_152, 76.8e6), (0, 7.0), (7, f64::NAN)];
        assert!(!other.iter().any(|(count, number)| rounds_to(*count, *number)));
        let texts = [9.4, 200.0, 3725.0, f64::NAN].map(duration);
        assert_eq!(texts, ["9 s", "3 min 20 s", "1 h 02 min", "0 s"]);
    }
}
