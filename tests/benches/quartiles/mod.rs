//! Prints the median of all rounds, and the quartiles in a comment.

/// Prints `name value unit`, or nothing if nothing was measured. `more` is appended to the comment.
pub(crate) fn print(name: &str, unit: &str, mut values: Vec<f64>, more: &str) {
    if values.is_empty() {
        return;
    }
    values.sort_by(f64::total_cmp);
    let at = |part: f64| digits(values[((values.len() - 1) as f64 * part).round() as usize]);
    println!("{name} {} {unit}", at(0.5));
    let (low, high, rounds) = (at(0.25), at(0.75), values.len());
    println!("# quartiles {low} to {high}, {rounds} rounds{more}");
}

fn digits(value: f64) -> String {
    let decimals = if value < 10.0 {
        3
    } else if value < 1_000.0 {
        1
    } else {
        0
    };
    format!("{value:.decimals$}")
}
