//! Handles one request: applies faults, forwards it, and filters the response.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::service::{HttpService, service_fn};
use hyper::{Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::sleep;

use super::distribution;
use super::faults::{Action, Faults};
use super::limits::{self, Limits};
use super::quotas::Quotas;
use super::request::{Operation, Request, Service, Shard};
use super::response::{self, ProxyBody, ProxyResponse, Refusal};
use super::retention::Retention;
use super::stats::RequestStats;
use super::subscription::Subscription;
use super::writes::Writes;

/// The latency of AWS within a region, at least.
const LATENCY: Duration = Duration::from_millis(10);

/// The state that all requests through a proxy share.
#[derive(Debug, Clone)]
pub(super) struct Exchange {
    pub(super) faults: Faults,
    pub(super) retention: Retention,
    pub(super) limits: Limits,
    pub(super) stats: RequestStats,
    writes: Writes,
    /// The ports of the services on 127.0.0.1.
    kinesis: u16,
    dynamodb: u16,
    http: Client<HttpConnector, Full<Bytes>>,
    /// Whether requests have latency and quotas, as those to AWS.
    quotas: Option<Quotas>,
}

impl Exchange {
    pub(super) fn new(faults: Faults, kinesis: u16, dynamodb: u16) -> Self {
        Self {
            faults,
            retention: Retention::default(),
            limits: Limits::default(),
            stats: RequestStats::new(),
            writes: Writes::default(),
            kinesis,
            dynamodb,
            http: Client::builder(TokioExecutor::new()).build_http(),
            quotas: None,
        }
    }

    /// Returns the same exchange with the latency and the quotas of AWS.
    pub(super) fn like_aws(self) -> Self {
        Self {
            quotas: Some(Quotas::default()),
            ..self
        }
    }

    /// Returns what responds to the requests of one connection.
    pub(super) fn service(
        self,
    ) -> impl HttpService<Incoming, ResBody = ProxyBody, Error = io::Error, Future: Send> {
        service_fn(move |request| {
            let response = self.clone().respond(request);
            async {
                // A request in transit arrives, even if its client has given up and is gone.
                let response = tokio::spawn(response).await;
                response.map_err(io::Error::other)?
            }
        })
    }

    /// Responds to a request. An error ends its connection, and no response is sent.
    pub(super) async fn respond(
        self,
        request: hyper::Request<Incoming>,
    ) -> io::Result<ProxyResponse> {
        let request = Request::read(request).await?;
        self.stats.add_request(&request);
        self.reached(&request)?;
        if let Some(quotas) = &self.quotas {
            sleep(LATENCY).await;
            if !quotas.admit(&request, Instant::now()) {
                return Ok(Refusal::LimitExceeded.into_response());
            }
        }
        let response = match self.faults.action_for(&request) {
            Action::Passed => self.passed(&request).await?,
            Action::Late(by) => {
                let response = self.passed(&request).await?;
                sleep(by).await;
                response
            }
            Action::AnswerLost => {
                self.forward(&request, &request.body).await?;
                return Err(io::Error::other("the response is lost"));
            }
            Action::Doubtful => {
                self.forward(&request, &request.body).await?;
                match request.operation {
                    Operation::PutRecords { .. } => {
                        let failed = vec![Some(Refusal::Internal); request.keys().len()];
                        response::of(
                            StatusCode::OK,
                            &response::with_failed(&Value::Null, &failed),
                        )
                    }
                    _ => Refusal::Internal.into_response(),
                }
            }
            Action::Without(failed) => self.without(&request, &failed).await?,
            Action::Refused(refusal) => refusal.into_response(),
            Action::Mute => response::mute(),
            Action::Cut => return Err(io::Error::other("the connection is cut")),
        };
        self.reached(&request)?;
        Ok(response)
    }

    /// Fails if the client is cut off.
    fn reached(&self, request: &Request) -> io::Result<()> {
        match self.faults.is_cut_off(&request.client, request.service) {
            true => Err(io::Error::other("the client is cut off")),
            false => Ok(()),
        }
    }

    /// Forwards a request, and returns its response without hidden records.
    async fn passed(&self, request: &Request) -> io::Result<ProxyResponse> {
        if let Operation::Subscription(shard) = &request.operation {
            let subscription = Subscription {
                shard: shard.clone(),
                client: request.client.clone(),
                faults: self.faults.clone(),
                retention: self.retention.clone(),
            };
            return Ok(subscription.pass(self.send(request, &request.body).await?));
        }
        if let Operation::Records { iterator } = &request.operation
            && let Some(shard) = self.retention.shard(iterator)
        {
            return self.read(request, &shard).await;
        }
        let body = match &request.operation {
            Operation::Iterator(shard) => &self.retention.place(shard, &request.body),
            Operation::PutRecords { stream } if self.faults.is_distributed(stream) => {
                &distribution::scatter(&request.body)
            }
            _ => &request.body,
        };
        let (status, mut response) = self.forward(request, body).await?;
        match &request.operation {
            Operation::Iterator(shard) => self.retention.learn(&response["ShardIterator"], shard),
            Operation::PutRecords { .. } => self.stats.add_batch_response(&response),
            Operation::Description { stream } if self.faults.is_distributed(stream) => {
                distribution::describe(&mut response);
            }
            _ => {}
        }
        Ok(response::of(status, &response))
    }

    /// Forwards a request for records, within the limits, and returns its response without hidden records.
    async fn read(&self, request: &Request, shard: &Shard) -> io::Result<ProxyResponse> {
        let asked = Instant::now();
        let is_admitted = self.limits.admit(shard, asked);
        self.stats.add_poll(&request.client, is_admitted);
        if !is_admitted {
            return Ok(Refusal::Throttled.into_response());
        }
        let mut body = request.body.clone();
        if let Some(most) = self.limits.most(shard) {
            let wanted = body["Limit"].as_u64().unwrap_or(u64::MAX);
            body["Limit"] = wanted.min(most).into();
        }
        let (mut status, mut response) = self.forward(request, &body).await?;
        if let Some(fitting) = self.limits.fitting(shard, &response) {
            body["Limit"] = fitting.into();
            (status, response) = self.forward(request, &body).await?;
        }
        self.limits.spend(shard, asked, &response);
        let bytes = limits::bytes(&response);
        if bytes > 0 {
            self.stats.read(&shard.id, asked, bytes);
        }
        self.retention.learn(&response["NextShardIterator"], shard);
        self.retention.apply(shard, &mut response);
        Ok(response::of(status, &response))
    }

    /// Forwards the records of a batch that do not fail.
    async fn without(
        &self,
        request: &Request,
        failed: &[Option<Refusal>],
    ) -> io::Result<ProxyResponse> {
        let mut body = request.body.clone();
        let mut fails = failed.iter().map(Option::is_some);
        if let Some(records) = body["Records"].as_array_mut() {
            records.retain(|_| !fails.next().unwrap_or_default());
        }
        let batch_response = match failed.iter().all(Option::is_some) {
            true => Value::Null,
            false => {
                let (status, batch_response) = self.forward(request, &body).await?;
                if status != StatusCode::OK {
                    return Ok(response::of(status, &batch_response));
                }
                batch_response
            }
        };
        Ok(response::of(
            StatusCode::OK,
            &response::with_failed(&batch_response, failed),
        ))
    }

    /// Forwards a request to its service.
    async fn forward(&self, request: &Request, body: &Value) -> io::Result<(StatusCode, Value)> {
        let _turn = self.writes.turn(&request.operation).await;
        let (parts, body) = self.send(request, body).await?.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        // Some responses have no body.
        let body = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body)?,
        };
        Ok((parts.status, body))
    }

    async fn send(&self, request: &Request, body: &Value) -> io::Result<Response<Incoming>> {
        let port = match request.service {
            Service::Kinesis => self.kinesis,
            Service::DynamoDb => self.dynamodb,
        };
        let mut sent = hyper::Request::post(format!("http://127.0.0.1:{port}/"));
        for (name, value) in &request.parts.headers {
            if name != HOST {
                sent = sent.header(name, value);
            }
        }
        let sent = sent
            .body(Full::from(body.to_string()))
            .map_err(io::Error::other)?;
        self.http.request(sent).await.map_err(io::Error::other)
    }
}
