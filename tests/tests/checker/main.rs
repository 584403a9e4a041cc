//! Tests of the checker: broken histories that it must reject, and good ones that it must accept.

mod script;

/// Asserts that the only violation has this shape. Defined before the modules that use it.
macro_rules! assert_caught {
    ($script:expr, $pattern:pat) => {
        let violation = $script.caught();
        assert!(matches!(violation, $pattern), "{violation}");
    };
}

mod broken;
mod good;
