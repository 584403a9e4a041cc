//! The SDK's types as text in JSON; a position has up to 192 bits, more than a JSON number.

pub(super) mod position {
    use millstream_core::Position;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(position: &Position, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(position)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Position, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

pub(super) mod some_position {
    use millstream_core::Position;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(
        position: &Option<Position>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        position.map(|position| position.to_string()).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Position>, D::Error> {
        Option::<String>::deserialize(from)?
            .map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}

pub(super) mod epoch {
    use millstream_core::Epoch;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(epoch: &Epoch, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(epoch.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Epoch, D::Error> {
        u64::deserialize(from).map(Epoch)
    }
}

pub(super) mod some_epoch {
    use millstream_core::Epoch;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        epoch: &Option<Epoch>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        epoch.map(|epoch| epoch.0).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Epoch>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Epoch))
    }
}

pub(super) mod partition {
    use millstream_core::Partition;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(
        partition: &Partition,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(partition)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Partition, D::Error> {
        let text = String::deserialize(from)?;
        // No stream's name contains a slash.
        let (stream, id) = text
            .split_once('/')
            .ok_or_else(|| D::Error::custom(format!("{text:?} is no stream/partition")))?;
        Ok(Partition::new(stream, id))
    }
}
