//! One WebSocket connection, from its upgrade to its end.

use crate::hub::Hub;
use crate::queue::{ClientQueue, SendStep, Video};
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tungstenite::error::{CapacityError, Error as WsError};

/// A message that the network does not take within this time ends the connection.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// How long the peer has for its half of the closing handshake.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Clients have nothing to say, so this is for control frames and for telling a mistake from an attack.
pub(crate) const MAX_INBOUND_BYTES: usize = 4096;

// RFC 6455, 7.4.1
const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED_DATA: u16 = 1003;
const INVALID_PAYLOAD: u16 = 1007;
const POLICY: u16 = 1008;
const TOO_BIG: u16 = 1009;
/// Registered by IANA.
const TRY_AGAIN_LATER: u16 = 1013;

/// Serves a connection until either side ends it.
pub(crate) async fn serve(socket: WebSocket, hub: Arc<Hub>, video: Video) {
    let (mut tx, rx) = socket.split();
    let subscriber = match hub.join(video) {
        Ok(subscriber) => subscriber,
        Err(max) => {
            // said in the closing handshake, where a browser's script can read it, unlike an HTTP status
            let reason = format!("this server takes {max} clients at most (MAX_CLIENTS)");
            let _ = timeout(CLOSE_WITHIN, tx.send(close(TRY_AGAIN_LATER, reason))).await;
            let _ = timeout(CLOSE_WITHIN, read(rx, &ClientQueue::new(video, Default::default()))).await;
            return;
        }
    };
    let queue = subscriber.queue.clone();
    let writer = std::pin::pin!(write(tx, &queue));
    let reader = std::pin::pin!(read(rx, &queue));
    // whichever ends first, the other has its part of the closing handshake to do
    match futures::future::select(writer, reader).await {
        futures::future::Either::Left((_, reader)) => drop(timeout(CLOSE_WITHIN, reader).await),
        futures::future::Either::Right((_, writer)) => drop(timeout(CLOSE_WITHIN, writer).await),
    }
}

fn close(code: u16, mut reason: String) -> Message {
    // a control frame has room for 125 bytes, two of them for the code; our reasons are ASCII
    reason.truncate(123);
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}

/// Sends what the queue holds until it says stop.
async fn write(mut tx: SplitSink<WebSocket, Message>, queue: &ClientQueue) {
    let mut ping = interval(queue.limits.dead_after / 4);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            next = queue.next() => match next {
                SendStep::Text(text) => Message::Text(text),
                SendStep::Binary(bytes) => Message::Binary(bytes),
                SendStep::Close(code, reason) => {
                    let _ = timeout(CLOSE_WITHIN, tx.send(close(code, reason))).await;
                    return;
                }
                SendStep::Hangup => return,
            },
            _ = ping.tick() => Message::Ping(Default::default()),
        };
        match timeout(SEND_WITHIN, tx.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::debug!("a client took nothing for {SEND_WITHIN:?} and was given up");
                return;
            }
        }
    }
}

/// Reads until the connection ends, and has the writer close the connection if the client broke the protocol.
/// Reading goes on after a close frame in either direction: that is what completes the handshake.
async fn read(mut rx: SplitStream<WebSocket>, queue: &ClientQueue) {
    loop {
        let received = match timeout(queue.limits.dead_after, rx.next()).await {
            Err(_) => return queue.abort(POLICY, "no answer to pings"),
            Ok(None) => return queue.hangup(),
            Ok(Some(received)) => received,
        };
        match received {
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Close(_)) => queue.hangup(),
            Ok(Message::Text(_) | Message::Binary(_)) => {
                queue.abort(UNSUPPORTED_DATA, "this server takes no messages: what a client wants is in the address");
            }
            Err(error) => {
                match error.into_inner().downcast_ref::<WsError>() {
                    Some(WsError::Protocol(e)) => queue.abort(PROTOCOL_ERROR, &e.to_string()),
                    Some(WsError::Utf8(_)) => queue.abort(INVALID_PAYLOAD, "text that is not UTF-8"),
                    Some(WsError::Capacity(CapacityError::MessageTooLong { .. })) => {
                        queue.abort(TOO_BIG, "a message of more than 4096 bytes");
                    }
                    _ => queue.hangup(),
                }
                return;
            }
        }
    }
}
