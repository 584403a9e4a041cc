//! Enhanced fan-out: SubscribeToShard, again every 5 minutes.

use super::hand::Done;
use super::reading::Reading;

impl<T: Clone> Reading<T> {
    pub(super) async fn subscribe(&mut self, _consumer: &str) -> Result<(), Done> {
        Ok(())
    }
}
