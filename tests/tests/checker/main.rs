//! The judge is judged: broken histories that it must refuse, and good ones that it must not.

mod script;

/// The only violation is of this shape. Stands before the modules that use it.
macro_rules! assert_caught {
    ($script:expr, $pattern:pat) => {
        let violation = $script.caught();
        assert!(matches!(violation, $pattern), "{violation}");
    };
}

mod broken;
mod good;
