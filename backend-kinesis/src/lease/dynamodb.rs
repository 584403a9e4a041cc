//! The lease table in DynamoDB.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ReturnValue,
    ReturnValuesOnConditionCheckFailure, ScalarAttributeType, TableStatus,
};
use millstream_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep};

use super::store::{Condition, Item, LeaseStore, Outcome, Update};
use crate::credit::Credit;
use crate::error;

/// The table's only key.
const KEY: &str = "leaseKey";

/// The key of the row that stores the Java workers' migration state.
const MIGRATION: &str = "Migration3.0";

/// The maximum length of a table name.
const LONGEST_NAME: usize = 255;

/// The interval at which a table that is being created is polled.
const TICK: Duration = Duration::from_millis(500);

/// One table.
#[derive(Debug)]
pub(crate) struct DynamoDb {
    client: Client,
    credit: Credit,
    table: Arc<str>,
    create: bool,
    patience: Duration,
}

impl DynamoDb {
    /// `create`: whether a missing table is created. `patience`: how long that may take.
    pub(crate) fn new(
        client: Client,
        credit: Credit,
        table: impl Into<Arc<str>>,
        create: bool,
        patience: Duration,
    ) -> Self {
        Self {
            client,
            credit,
            table: table.into(),
            create,
            patience,
        }
    }

    /// Returns whether the table exists and is active. Fails with `NotFound` if it does not exist.
    async fn is_ready(&self) -> Result<bool> {
        let described = self.client.describe_table().table_name(&*self.table);
        let described = described.send().await;
        let described = described.map_err(|e| error::of("open lease table", e, &self.credit))?;
        let Some(table) = described.table else {
            return Ok(false);
        };
        let keys = table.key_schema.unwrap_or_default();
        if !matches!(&*keys, [key] if key.attribute_name == KEY) {
            let message = format!(
                "the table {} has another key than `{KEY}` alone: it is no table of leases",
                self.table
            );
            return Err(Error::new(ErrorKind::Invalid, "open lease table", message));
        }
        Ok(matches!(
            table.table_status,
            Some(TableStatus::Active | TableStatus::Updating)
        ))
    }

    /// Creates the table as the KCL does: one key, and on-demand billing.
    async fn make(&self) -> Result<()> {
        let key = KeySchemaElement::builder()
            .attribute_name(KEY)
            .key_type(KeyType::Hash)
            .build();
        let attribute = AttributeDefinition::builder()
            .attribute_name(KEY)
            .attribute_type(ScalarAttributeType::S)
            .build();
        let invalid = |e: aws_sdk_dynamodb::error::BuildError| {
            Error::new(ErrorKind::Invalid, "create lease table", e.to_string())
        };
        let created = self
            .client
            .create_table()
            .table_name(&*self.table)
            .key_schema(key.map_err(invalid)?)
            .attribute_definitions(attribute.map_err(invalid)?)
            .billing_mode(BillingMode::PayPerRequest)
            .send()
            .await;
        match created {
            Ok(_) => Ok(()),
            // Another member is creating it.
            Err(e)
                if e.as_service_error()
                    .is_some_and(|e| e.is_resource_in_use_exception()) =>
            {
                Ok(())
            }
            Err(e) => Err(error::of("create lease table", e, &self.credit)),
        }
    }

    fn of<E>(&self, operation: &'static str, failed: SdkError<E>) -> Error
    where
        E: aws_sdk_dynamodb::error::ProvideErrorMetadata
            + std::error::Error
            + Send
            + Sync
            + 'static,
    {
        let error = error::of(operation, failed, &self.credit);
        let message = format!("{} (lease table {})", error.message(), self.table);
        Error::new(error.kind(), operation, message).with_source(error)
    }

    async fn item(&self, table: &str, key: &str, id: &str) -> Result<Option<Item>> {
        let asked = self.client.get_item().table_name(table);
        let asked = asked.key(key, AttributeValue::S(id.to_owned()));
        let answer = asked.consistent_read(true).send().await;
        Ok(answer.map_err(|e| self.of("read lease", e))?.item)
    }
}

#[async_trait]
impl LeaseStore for DynamoDb {
    fn table(&self) -> &str {
        &self.table
    }

    async fn open(&self) -> Result<()> {
        let deadline = Instant::now() + self.patience;
        let mut made = false;
        loop {
            match self.is_ready().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::NotFound && self.create && !made => {
                    match self.make().await {
                        Ok(()) => {
                            made = true;
                            continue;
                        }
                        Err(error) if error.is_retryable() => {}
                        Err(error) => return Err(error),
                    }
                }
                // A new table may not be known everywhere yet.
                Err(error) if error.kind() == ErrorKind::NotFound && made => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let message = format!(
                        "there is no table {}: make one with the partition key `{KEY}`, a string, \
                         or set `leases.create`",
                        self.table
                    );
                    let error = Error::new(ErrorKind::NotFound, "open lease table", message);
                    return Err(error);
                }
                Err(error) if error.is_retryable() => {}
                Err(error) => return Err(error),
            }
            if Instant::now() + TICK > deadline {
                let message = format!(
                    "the lease table {} cannot be used after {:?}",
                    self.table, self.patience
                );
                return Err(Error::new(ErrorKind::Timeout, "open lease table", message));
            }
            sleep(TICK).await;
        }
    }

    async fn scan(&self, consistent: bool) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        let mut from = None;
        loop {
            let page = self.client.scan().table_name(&*self.table);
            let page = page.consistent_read(consistent);
            let page = page.set_exclusive_start_key(from).send().await;
            let page = page.map_err(|e| self.of("scan leases", e))?;
            items.extend(page.items.unwrap_or_default());
            from = page.last_evaluated_key;
            if from.is_none() {
                return Ok(items);
            }
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Item>> {
        self.item(&self.table, KEY, key).await
    }

    async fn create(&self, item: Item) -> Result<bool> {
        let created = self
            .client
            .put_item()
            .table_name(&*self.table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(#key)")
            .expression_attribute_names("#key", KEY)
            .send()
            .await;
        match created {
            Ok(_) => Ok(true),
            Err(e)
                if e.as_service_error()
                    .is_some_and(|e| e.is_conditional_check_failed_exception()) =>
            {
                Ok(false)
            }
            Err(e) => Err(self.of("create lease", e)),
        }
    }

    async fn update(&self, key: &str, update: &Update) -> Result<Outcome> {
        let mut terms = Terms::default();
        let change = terms.change(update);
        let given = terms.given(&update.given);
        let changed = self
            .client
            .update_item()
            .table_name(&*self.table)
            .key(KEY, AttributeValue::S(key.to_owned()))
            .update_expression(change)
            .condition_expression(given)
            .set_expression_attribute_names(terms.names())
            .set_expression_attribute_values(terms.values())
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match changed {
            Ok(answer) => Ok(Outcome::Applied(answer.attributes.unwrap_or_default())),
            Err(failed) => match failed.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(refused)) => {
                    match &refused.item {
                        Some(item) => Ok(Outcome::Refused(Some(item.clone()))),
                        // An old emulator does not return the row, and a missing row has none.
                        None => Ok(Outcome::Refused(self.get(key).await?)),
                    }
                }
                _ => Err(self.of("change lease", failed)),
            },
        }
    }

    async fn delete(&self, key: &str, given: &[Condition]) -> Result<bool> {
        let mut terms = Terms::default();
        let given = (!given.is_empty()).then(|| terms.given(given));
        let deleted = self
            .client
            .delete_item()
            .table_name(&*self.table)
            .key(KEY, AttributeValue::S(key.to_owned()))
            .set_condition_expression(given)
            .set_expression_attribute_names(terms.names())
            .set_expression_attribute_values(terms.values())
            .return_values(ReturnValue::AllOld)
            .send()
            .await;
        match deleted {
            Ok(answer) => Ok(answer.attributes.is_some()),
            Err(e)
                if e.as_service_error()
                    .is_some_and(|e| e.is_conditional_check_failed_exception()) =>
            {
                Ok(false)
            }
            Err(e) => Err(self.of("delete lease", e)),
        }
    }

    async fn client_version(&self) -> Result<Option<String>> {
        let version = |item: Option<Item>| {
            let cv = item?.remove("cv")?;
            cv.as_s().ok().cloned()
        };
        if let Some(found) = version(self.item(&self.table, KEY, MIGRATION).await?) {
            return Ok(Some(found));
        }
        // The table in which the KCL 3.0 to 3.4 keeps it. Most groups have no such table, and a member does not need
        // the permission to read it.
        let beside = format!("{}-CoordinatorState", self.table);
        if beside.len() > LONGEST_NAME {
            return Ok(None);
        }
        match self.item(&beside, "key", MIGRATION).await {
            Ok(item) => Ok(version(item)),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Denied) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// The names and values to which the expressions of one request refer. Names are always placeholders:
/// DynamoDB reserves hundreds of words.
#[derive(Debug, Default)]
struct Terms {
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Terms {
    fn name(&mut self, name: &str) -> String {
        let short = format!("#{name}");
        self.names.insert(short.clone(), name.to_owned());
        short
    }

    fn value(&mut self, value: &AttributeValue) -> String {
        let short = format!(":{}", self.values.len());
        self.values.insert(short.clone(), value.clone());
        short
    }

    fn change(&mut self, update: &Update) -> String {
        let mut expression = String::new();
        for (index, (name, value)) in update.set.iter().enumerate() {
            let verb = if index == 0 { "SET " } else { ", " };
            let (name, value) = (self.name(name), self.value(value));
            let _ = write!(expression, "{verb}{name} = {value}");
        }
        for (index, name) in update.remove.iter().enumerate() {
            let verb = if index == 0 { " REMOVE " } else { ", " };
            let name = self.name(name);
            let _ = write!(expression, "{verb}{name}");
        }
        expression
    }

    fn given(&mut self, conditions: &[Condition]) -> String {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|condition| match condition {
                Condition::Exists => format!("attribute_exists({})", self.name(KEY)),
                Condition::Absent(name) => format!("attribute_not_exists({})", self.name(name)),
                Condition::Is(name, value) => {
                    let (name, value) = (self.name(name), self.value(value));
                    format!("{name} = {value}")
                }
            })
            .collect();
        conditions.join(" AND ")
    }

    fn names(&self) -> Option<HashMap<String, String>> {
        (!self.names.is_empty()).then(|| self.names.clone())
    }

    fn values(&self) -> Option<HashMap<String, AttributeValue>> {
        (!self.values.is_empty()).then(|| self.values.clone())
    }
}

#[cfg(test)]
mod tests;
