//! The chain of causes of an error.

use std::error::Error as StdError;
use std::iter::successors;

/// Returns the first error of this type in the chain of causes.
pub(crate) fn find<'a, T: StdError + 'static>(
    error: &'a (dyn StdError + 'static),
) -> Option<&'a T> {
    let mut causes = successors(Some(error), |&error| error.source());
    causes.find_map(|error| error.downcast_ref())
}
