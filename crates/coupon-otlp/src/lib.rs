//! Receives spans over OTLP/gRPC in this process, for the bench, which counts them, and for the tests, which read them.
//!
//! Invariant: an export is answered only after its spans were handed over, so a service that has flushed has no spans
//! in flight.

use std::io;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, async_trait};

pub use opentelemetry_proto::tonic::common;
pub use opentelemetry_proto::tonic::trace::v1 as trace;

/// A receiver that runs for as long as the runtime it was started on.
#[derive(Debug)]
pub struct Receiver {
    url: String,
}

impl Receiver {
    /// Listens on a free port and hands each export to `take`: the spans of each sender, with the attributes of its
    /// resource.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(take: impl Fn(Vec<trace::ResourceSpans>) + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let service = TraceServiceServer::new(HandOver(take));
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
        Ok(Self { url })
    }

    /// The receiver's address, for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

struct HandOver<F>(F);

#[async_trait]
impl<F: Fn(Vec<trace::ResourceSpans>) + Send + Sync + 'static> TraceService for HandOver<F> {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        (self.0)(request.into_inner().resource_spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
