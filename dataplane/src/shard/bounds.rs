//! A shard's bounds and time-outs, taken once from the table of limits.

use std::time::Duration;

use tidegate_plan::{Limit, Limits};
use tidegate_vtl::Budget;

use super::http2::Allowances;
use crate::http::HeadLimits;
use crate::net::race::How;
use crate::net::upstream::{Http2Limits, UpstreamLimits};
use crate::sockets;

/// The rows of the table of limits that a shard needs, in the types it needs them in.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Client connections.
    pub connections: usize,
    /// How long a connection is idle before it may be closed to make room.
    pub yield_after: Duration,
    /// Accepted, or let into their handshake, at a time.
    pub newcomers: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From accept to the end of the PROXY protocol's header.
    pub proxy_header: Duration,
    /// A PROXY protocol header, in bytes.
    pub proxy_header_bytes: usize,
    /// From a request's first byte to the end of its head.
    pub head: Duration,
    /// Between two reads of a request's body.
    pub body_idle: Duration,
    /// While the peer takes nothing of what is to be sent.
    pub write_stall: Duration,
    /// Between two requests.
    pub keep_alive: Duration,
    /// While an answer waits for the next one to be sent with.
    pub answer_hold: Duration,
    /// Between two reads of a response's body.
    pub stream_idle: Duration,
    /// While neither side of a tunnel says anything.
    pub tunnel_idle: Duration,
    /// Bytes read ahead of the current request while it is being answered.
    pub read_ahead: usize,
    /// After which a wait is a long one.
    pub lull: Duration,
    /// To read on after an error answer.
    pub linger: Duration,
    /// What is read on after an error answer, in bytes.
    pub linger_bytes: usize,
    /// A body, each way, in bytes.
    pub payload: u64,
    /// Body bytes held between a reader and a slower writer.
    pub window: usize,
    /// A request body that is held for a retry, in bytes.
    pub retry_hold: usize,
    /// Informational responses before a final one.
    pub informational: usize,
    /// A request's head.
    pub request_head: HeadLimits,
    /// A backend's response head.
    pub response_head: HeadLimits,
    /// HTTP/2.
    pub http2: Http2Bounds,
    /// What rendering one template may cost.
    pub template: Budget,
    /// How deep the JSON of a body may be.
    pub json_depth: usize,
    /// Towards upstreams.
    pub upstream: UpstreamLimits,
}

/// The rows that concern HTTP/2 alone.
#[derive(Debug, Clone, Copy)]
pub struct Http2Bounds {
    /// Streams of one connection at a time.
    pub streams: u32,
    /// Streams of the shard at a time.
    pub shard_streams: usize,
    /// A stream's window for request bodies, in bytes.
    pub stream_window: u32,
    /// A connection's window for request bodies, in bytes.
    pub connection_window: u32,
    /// What h2 holds of a response's body, in bytes.
    pub send_buffer: usize,
    /// By how much DATA frames that are held may fall short of 256 bytes each.
    pub small_data: usize,
    /// Streams that may end in an error.
    pub stream_errors: usize,
    /// Resets of streams that are not even accepted.
    pub resets: usize,
    /// A head's bound as HTTP/2 counts it: names, values, and 32 bytes for each field (RFC 9113 section 6.5.2).
    pub header_list: u32,
    /// Frames that cost work and carry nothing.
    pub allowances: Allowances,
}

impl Http2Bounds {
    fn new(limits: &Limits) -> Self {
        let narrow = |limit| u32::try_from(limits.get(limit)).unwrap_or(u32::MAX);
        let head = HeadLimits::for_requests(limits);
        // The pseudo-header fields count as well.
        let header_list = head.head + 32 * (head.fields + 4);
        Self {
            streams: narrow(Limit::Http2ConcurrentStreams),
            shard_streams: limits.count(Limit::Http2StreamsPerShard),
            stream_window: narrow(Limit::Http2StreamWindowBytes),
            connection_window: narrow(Limit::Http2ConnectionWindowBytes),
            send_buffer: limits.count(Limit::Http2SendBufferBytes),
            small_data: limits.count(Limit::Http2SmallDataBytes),
            stream_errors: limits.count(Limit::Http2StreamErrors),
            resets: limits.count(Limit::Http2Resets),
            header_list: u32::try_from(header_list).unwrap_or(u32::MAX),
            allowances: Allowances::new(limits),
        }
    }
}

fn template(limits: &Limits) -> Budget {
    let narrow = |limit| u32::try_from(limits.get(limit)).unwrap_or(u32::MAX);
    Budget {
        iterations: narrow(Limit::TemplateIterations),
        steps: limits.get(Limit::TemplateSteps),
        output: limits.count(Limit::TemplateOutputBytes),
        memory: limits.count(Limit::TemplateMemoryBytes),
        depth: narrow(Limit::TemplateDepth),
        json_depth: limits.count(Limit::JsonDepth),
    }
}

fn upstream_http2(limits: &Limits) -> Http2Limits {
    let narrow = |limit| u32::try_from(limits.get(limit)).unwrap_or(u32::MAX);
    let head = HeadLimits::for_responses(limits);
    let header_list = head.head + 32 * (head.fields + 1);
    Http2Limits {
        streams: limits.count(Limit::UpstreamHttp2Streams),
        stream_window: narrow(Limit::UpstreamHttp2StreamWindowBytes),
        connection_window: narrow(Limit::UpstreamHttp2ConnectionWindowBytes),
        send_buffer: limits.count(Limit::Http2SendBufferBytes),
        header_list: u32::try_from(header_list).unwrap_or(u32::MAX),
        queued: limits.count(Limit::BodyWindowBytes),
        ping_after: limits.duration(Limit::UpstreamHttp2PingAfter),
        ping_timeout: limits.duration(Limit::UpstreamHttp2PingTimeout),
    }
}

impl Bounds {
    /// The rows in force.
    pub fn new(limits: &Limits) -> Self {
        Self {
            connections: limits.count(Limit::ConnectionsPerShard),
            yield_after: limits.duration(Limit::YieldAfter),
            newcomers: limits.count(Limit::NewcomersPerTurn),
            handshake: limits.duration(Limit::TlsHandshakeTimeout),
            proxy_header: limits.duration(Limit::ProxyHeaderTimeout),
            proxy_header_bytes: limits.count(Limit::ProxyHeaderBytes),
            head: limits.duration(Limit::RequestHeadTimeout),
            body_idle: limits.duration(Limit::BodyIdleTimeout),
            write_stall: limits.duration(Limit::WriteStallTimeout),
            keep_alive: limits.duration(Limit::KeepAliveTimeout),
            answer_hold: limits.duration(Limit::AnswerHold),
            stream_idle: limits.duration(Limit::StreamIdleTimeout),
            tunnel_idle: limits.duration(Limit::TunnelIdleTimeout),
            read_ahead: limits.count(Limit::ReadAheadBytes),
            lull: limits.duration(Limit::WatchDelay),
            linger: limits.duration(Limit::LingerTimeout),
            linger_bytes: limits.count(Limit::LingerBytes),
            payload: limits.get(Limit::PayloadBytes),
            window: limits.count(Limit::BodyWindowBytes),
            retry_hold: limits.count(Limit::RetryHoldBytes),
            informational: limits.count(Limit::InformationalResponses),
            request_head: HeadLimits::for_requests(limits),
            response_head: HeadLimits::for_responses(limits),
            http2: Http2Bounds::new(limits),
            template: template(limits),
            json_depth: limits.count(Limit::JsonDepth),
            upstream: UpstreamLimits {
                connect: limits.duration(Limit::ConnectTimeout),
                watch_delay: limits.duration(Limit::WatchDelay),
                attempt_delay: limits.duration(Limit::ConnectAttemptDelay),
                addresses: limits.count(Limit::UpstreamAddresses),
                pool_wait: limits.duration(Limit::PoolWaitTimeout),
                idle: limits.duration(Limit::UpstreamIdleTimeout),
                max_idle: limits.count(Limit::UpstreamIdlePerTarget),
                min_idle: limits.count(Limit::UpstreamIdleMin),
                distrust: limits.duration(Limit::UpstreamDistrustTime),
                check: limits.duration(Limit::UpstreamCheckInterval),
                max_waiters: limits.count(Limit::UpstreamWaiters),
                http2: upstream_http2(limits),
                tls_sessions: limits.count(Limit::UpstreamTlsSessions),
                retry_burst: u32::try_from(limits.get(Limit::RetryBurst)).unwrap_or(u32::MAX),
                retry_percent: u32::try_from(limits.get(Limit::RetryBudget))
                    .unwrap_or(100)
                    .min(100),
                how: How {
                    tcp: sockets::towards_backends(limits),
                    ..How::default()
                },
            },
        }
    }
}
