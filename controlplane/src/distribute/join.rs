//! How a machine becomes a node: one-time tokens, join files, certificates.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rcgen::CertificateSigningRequestParams;
use rustls::pki_types::CertificateSigningRequestDer;
use serde_json::{Value, json};
use tidegate_proto::config::v1::Hello;

use super::{
    ca::{Authority, NodeCertificate, hex},
    registry::{NodeRecord, Standing},
};
use crate::{
    model::{Code, Key, Kind, Refusal, Timestamp, id},
    store::{List, Put, Read, Row, Secret, Store, Write, transact},
};

/// How long a token may be valid at most.
pub const LONGEST_VALIDITY: Duration = Duration::from_secs(30 * 86_400);
/// How long a token is valid when nothing is said.
pub const DEFAULT_VALIDITY: Duration = Duration::from_secs(3_600);
/// Tokens that may be outstanding at a time.
const TOKENS_MAX: usize = 10_000;
/// Bytes of a node's name.
const NAME_MAX: usize = 128;

/// A token that was just made. It is shown once; the store keeps only its keyed hash.
pub(super) struct JoinToken {
    /// The secret.
    pub token: String,
    /// Until when it holds.
    pub expires: Timestamp,
}

/// What a join brings.
pub(super) struct Joined {
    /// The node.
    pub node: NodeRecord,
    /// Its certificate.
    pub certificate: NodeCertificate,
}

/// Makes a token. With a node name, the node of that name takes it: a known one keeps its id, so that it can come back
/// after its certificate has ended. Without, whoever joins becomes a new node.
pub(super) async fn create_token(
    store: &dyn Store,
    node_name: &str,
    validity: Duration,
) -> Result<JoinToken, Refusal> {
    check_name(node_name)?;
    if validity.is_zero() || validity > LONGEST_VALIDITY {
        return Err(Refusal::bad_request(format!(
            "A join token is valid for 1 to {} seconds",
            LONGEST_VALIDITY.as_secs()
        )));
    }
    let token = id::secret()?;
    let row_id = id::random(id::LONG)?;
    let expires = Timestamp::from_unix(Timestamp::now().unix() + validity.as_secs() as i64)
        .ok_or_else(|| Refusal::internal("the clock is beyond the years that can be written"))?;
    let put = Put {
        key: Key::top(Kind::JoinToken, row_id),
        account: String::new(),
        region: String::new(),
        body: json!({ "nodeName": node_name, "expires": expires.unix() }),
        secret: Secret::Hashed(token.clone().into_bytes()),
    };
    transact(store, move |tx| {
        Box::pin(async move {
            let mut rows = tx.list(&List::all(Kind::JoinToken)).await?;
            let now = Timestamp::now().unix();
            let all = rows.len();
            rows.retain(|row| number(row, "expires") <= now);
            for row in &rows {
                tx.delete_quietly(&row.key).await?;
            }
            if all - rows.len() >= TOKENS_MAX {
                return Err(Refusal::new(
                    Code::LimitExceeded,
                    format!("{TOKENS_MAX} join tokens are outstanding. Wait until some expire"),
                ));
            }
            tx.put_quietly(put).await?;
            Ok(())
        })
    })
    .await?;
    Ok(JoinToken { token, expires })
}

/// The text of a join file.
pub(super) fn join_file(control: &str, authority: &Authority, token: &JoinToken) -> String {
    format!(
        "# Lets one machine join this Tidegate installation as a node, until {expires}:\n\
         #   tidegate dataplane --join FILE\n\
         # It holds a secret. Delete it when the node has joined.\n\
         control = \"{control}\"\n\
         authority-sha256 = \"{digest}\"\n\
         token = \"{token}\"\n",
        expires = token.expires,
        digest = authority.digest(),
        token = token.token,
    )
}

/// Takes a token and certifies the key of `request`.
///
/// A token is good for one key: the same request may come again, because its answer may have been lost, any other is
/// refused.
pub(super) async fn join(
    store: &dyn Store,
    authority: &Authority,
    token: &str,
    node_name: &str,
    request: &[u8],
    lifetime: Duration,
) -> Result<Joined, Refusal> {
    check_name(node_name)?;
    let fingerprint = key_fingerprint(request)?;
    let (token, name) = (token.to_owned(), node_name.to_owned());
    let node_id = transact(store, move |tx| {
        Box::pin(async move {
            let row = tx
                .find(Kind::JoinToken, token.as_bytes())
                .await?
                .ok_or_else(unknown_token)?;
            if number(&row, "expires") <= Timestamp::now().unix() {
                return Err(Refusal::new(
                    Code::Unauthorized,
                    "The join token has expired. Make a new one: tidegate node token",
                ));
            }
            match text(&row, "usedBy") {
                "" => {}
                by if by == fingerprint => return Ok(text(&row, "nodeId").to_owned()),
                _ => return Err(used_token()),
            }
            let given = text(&row, "nodeName");
            let name = if given.is_empty() { name } else { given.to_owned() };
            let node_id = match given.is_empty() {
                true => None,
                false => find_node(tx.as_read(), given).await?,
            };
            let node_id = match node_id {
                Some(known) => known,
                None => free_id(tx.as_read()).await?,
            };
            put_node(
                tx,
                &NodeRecord {
                    id: node_id.clone(),
                    name,
                    certificate_expires: SystemTime::now(),
                    standing: None,
                },
            )
            .await?;
            let mut body = row.body.clone();
            body["usedBy"] = json!(fingerprint);
            body["nodeId"] = json!(node_id);
            tx.put_quietly(Put {
                key: row.key,
                account: row.account,
                region: row.region,
                body,
                secret: Secret::Keep,
            })
            .await?;
            Ok(node_id)
        })
    })
    .await?
    .0;
    certify(store, authority, &node_id, request, lifetime).await
}

/// Certifies a known node's next key.
pub(super) async fn certify(
    store: &dyn Store,
    authority: &Authority,
    node_id: &str,
    request: &[u8],
    lifetime: Duration,
) -> Result<Joined, Refusal> {
    let certificate = authority.issue_node(node_id, request, lifetime)?;
    let (id, expires) = (node_id.to_owned(), certificate.not_after);
    let node = transact(store, move |tx| {
        Box::pin(async move {
            let row = tx.get(&node_key(&id)).await?.ok_or_else(|| unknown_node(&id))?;
            let node = NodeRecord {
                certificate_expires: expires,
                ..record(&row)
            };
            put_node(tx, &node).await?;
            Ok(node)
        })
    })
    .await?
    .0;
    Ok(Joined { node, certificate })
}

/// Every node that has joined and was not removed.
pub(super) async fn nodes(store: &dyn Store) -> Result<Vec<NodeRecord>, Refusal> {
    let mut read = store.read().await?;
    Ok(read
        .list(&List::all(Kind::Node))
        .await?
        .iter()
        .map(record)
        .collect())
}

/// Keeps how nodes stand; those that were removed meanwhile stay so.
pub(super) async fn keep_standing(store: &dyn Store, nodes: Vec<NodeRecord>) -> Result<(), Refusal> {
    transact(store, move |tx| {
        Box::pin(async move {
            for node in nodes {
                let (Some(row), Some(standing)) = (tx.get(&node_key(&node.id)).await?, node.standing) else {
                    continue;
                };
                let mut body = row.body;
                body["standing"] = standing_to_json(&standing);
                put_row(tx, &node.id, body).await?;
            }
            Ok(())
        })
    })
    .await?;
    Ok(())
}

/// Forgets a node.
pub(super) async fn remove(store: &dyn Store, node_id: &str) -> Result<(), Refusal> {
    let id = node_id.to_owned();
    transact(store, move |tx| {
        Box::pin(async move {
            match tx.delete_quietly(&node_key(&id)).await? {
                true => Ok(()),
                false => Err(unknown_node(&id)),
            }
        })
    })
    .await?;
    Ok(())
}

fn node_key(id: &str) -> Key {
    Key::top(Kind::Node, id)
}

async fn find_node(tx: &mut dyn Read, name: &str) -> Result<Option<String>, Refusal> {
    let rows = tx.list(&List::all(Kind::Node)).await?;
    Ok(rows
        .into_iter()
        .find(|row| text(row, "name") == name)
        .map(|row| row.key.id))
}

async fn free_id(tx: &mut dyn Read) -> Result<String, Refusal> {
    loop {
        let id = id::random(id::LONG)?;
        if !tx.id_taken(&id).await? {
            return Ok(id);
        }
    }
}

/// Writes name and certificate; what is known besides stays.
async fn put_node(tx: &mut dyn Write, node: &NodeRecord) -> Result<(), Refusal> {
    let row = tx.get(&node_key(&node.id)).await?;
    let mut body = row.map_or_else(|| json!({}), |row| row.body);
    body["name"] = json!(node.name);
    body["certificateExpires"] = json!(seconds(node.certificate_expires));
    put_row(tx, &node.id, body).await
}

async fn put_row(tx: &mut dyn Write, id: &str, body: Value) -> Result<(), Refusal> {
    tx.put_quietly(Put {
        key: node_key(id),
        account: String::new(),
        region: String::new(),
        body,
        secret: Secret::Clear,
    })
    .await?;
    Ok(())
}

fn record(row: &Row) -> NodeRecord {
    NodeRecord {
        id: row.key.id.clone(),
        name: text(row, "name").to_owned(),
        certificate_expires: time(&row.body, "certificateExpires"),
        standing: row.body.get("standing").map(standing_from_json),
    }
}

fn standing_to_json(standing: &Standing) -> Value {
    let hello = &standing.hello;
    json!({
        "version": hello.version,
        "driver": hello.driver,
        "shards": hello.shards,
        "labels": hello.labels,
        "httpAddress": hello.http_address,
        "httpsAddress": hello.https_address,
        "revision": standing.revision,
        "lastSeen": seconds(standing.last_seen),
        "connected": standing.connected,
    })
}

fn standing_from_json(value: &Value) -> Standing {
    let text = |member: &str| value[member].as_str().unwrap_or_default().to_owned();
    let number = |member: &str| value[member].as_u64().unwrap_or_default();
    let labels = value["labels"].as_object().into_iter().flatten();
    let hello = Hello {
        version: text("version"),
        driver: text("driver"),
        shards: u32::try_from(number("shards")).unwrap_or(u32::MAX),
        labels: labels
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect(),
        http_address: text("httpAddress"),
        https_address: text("httpsAddress"),
        ..Hello::default()
    };
    Standing {
        hello,
        revision: number("revision"),
        last_seen: time(value, "lastSeen"),
        connected: value["connected"].as_bool().unwrap_or_default(),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn time(body: &Value, member: &str) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(body[member].as_u64().unwrap_or_default())
}

fn text<'a>(row: &'a Row, member: &str) -> &'a str {
    row.body.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn number(row: &Row, member: &str) -> i64 {
    row.body.get(member).and_then(Value::as_i64).unwrap_or(0)
}

/// What tells keys apart: the request's public key, not its signature, which differs from time to time.
fn key_fingerprint(request: &[u8]) -> Result<String, Refusal> {
    use rcgen::PublicKeyData;
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
        .map_err(|error| {
            Refusal::bad_request(format!("The certificate request is not valid PKCS #10: {error}"))
        })?;
    Ok(hex(digest::digest(
        &digest::SHA256,
        request.public_key.der_bytes(),
    )
    .as_ref()))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.len() > NAME_MAX || !name.bytes().all(allowed) {
        return Err(Refusal::bad_request(format!(
            "A node's name has at most {NAME_MAX} letters, digits, dots, hyphens and underscores"
        )));
    }
    Ok(())
}

fn unknown_token() -> Refusal {
    Refusal::new(
        Code::Unauthorized,
        "The join token is not known here: it has expired or is of another installation. Make one: tidegate node token",
    )
}

fn used_token() -> Refusal {
    Refusal::new(
        Code::Unauthorized,
        "The join token was used before. Each node needs its own: tidegate node token",
    )
}

fn unknown_node(id: &str) -> Refusal {
    Refusal::not_found(format!(
        "Invalid node identifier specified: {id}. See tidegate nodes"
    ))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::{distribute::ca::NODE_LIFETIME, store::SqliteStore};

    async fn installation() -> (tempfile::TempDir, SqliteStore, Authority) {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path()).await.unwrap();
        let authority = Authority::open(&store).await.unwrap();
        (directory, store, authority)
    }

    fn request(key: &KeyPair) -> Vec<u8> {
        CertificateParams::default()
            .serialize_request(key)
            .unwrap()
            .der()
            .to_vec()
    }

    /// C7: a token makes one node; the same key may ask again, another may not.
    #[tokio::test]
    async fn a_token_is_good_for_one_key() {
        let (_directory, store, authority) = installation().await;
        let token = create_token(&store, "", DEFAULT_VALIDITY).await.unwrap().token;
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let take = async |key: &KeyPair| {
            join(&store, &authority, &token, "edge-1", &request(key), NODE_LIFETIME).await
        };
        let first = take(&key).await.unwrap().node;
        assert_eq!(first.name, "edge-1");
        assert_eq!(take(&key).await.unwrap().node.id, first.id);
        let Err(refusal) = take(&other).await else {
            panic!("the token was taken twice")
        };
        assert_eq!(refusal, used_token());
        assert_eq!(nodes(&store).await.unwrap().len(), 1);
    }

    /// C7: tokens end; unknown ones are refused.
    #[tokio::test]
    async fn unknown_and_expired_tokens_are_refused() {
        let (_directory, store, authority) = installation().await;
        let key = request(&KeyPair::generate().unwrap());
        let taken = join(&store, &authority, "guess", "a", &key, NODE_LIFETIME).await;
        assert_eq!(taken.err(), Some(unknown_token()));
        let token = id::secret().unwrap();
        let put = Put {
            key: Key::top(Kind::JoinToken, "old"),
            account: String::new(),
            region: String::new(),
            body: json!({ "nodeName": "", "expires": Timestamp::now().unix() - 1 }),
            secret: Secret::Hashed(token.clone().into_bytes()),
        };
        transact(&store, move |tx| {
            Box::pin(async move { Ok(tx.put_quietly(put).await?) })
        })
        .await
        .unwrap();
        let Err(refusal) = join(&store, &authority, &token, "a", &key, NODE_LIFETIME).await else {
            panic!("an expired token was taken")
        };
        assert!(refusal.message.contains("expired"), "{}", refusal.message);
        // Making another sweeps it away.
        create_token(&store, "", DEFAULT_VALIDITY).await.unwrap();
        let mut read = store.read().await.unwrap();
        assert_eq!(read.list(&List::all(Kind::JoinToken)).await.unwrap().len(), 1);
    }

    /// A token with a name brings that node back under its id; a removed one is gone.
    #[tokio::test]
    async fn a_named_token_keeps_the_nodes_id() {
        let (_directory, store, authority) = installation().await;
        let mut ids = Vec::new();
        for _ in 0..2 {
            let token = create_token(&store, "edge-1", DEFAULT_VALIDITY)
                .await
                .unwrap()
                .token;
            let key = request(&KeyPair::generate().unwrap());
            let joined = join(&store, &authority, &token, "says-else", &key, NODE_LIFETIME)
                .await
                .unwrap();
            assert_eq!(joined.node.name, "edge-1");
            ids.push(joined.node.id);
        }
        assert_eq!(ids[0], ids[1]);
        // How it stood outlives certificates, and does not bring back a node that was removed.
        let standing = Standing {
            hello: Hello {
                version: "1".into(),
                driver: "epoll".into(),
                shards: 3,
                labels: [("zone".to_owned(), "a".to_owned())].into(),
                http_address: "127.0.0.1:1".into(),
                https_address: "127.0.0.1:2".into(),
                ..Hello::default()
            },
            revision: 7,
            last_seen: SystemTime::UNIX_EPOCH + Duration::from_secs(100),
            connected: true,
        };
        let mut node = nodes(&store).await.unwrap().remove(0);
        node.standing = Some(standing.clone());
        keep_standing(&store, vec![node.clone()]).await.unwrap();
        let key = request(&KeyPair::generate().unwrap());
        certify(&store, &authority, &ids[0], &key, NODE_LIFETIME)
            .await
            .unwrap();
        assert_eq!(nodes(&store).await.unwrap()[0].standing, Some(standing));
        remove(&store, &ids[0]).await.unwrap();
        keep_standing(&store, vec![node]).await.unwrap();
        assert_eq!(nodes(&store).await.unwrap(), []);
        assert_eq!(remove(&store, &ids[0]).await, Err(unknown_node(&ids[0])));
        let key = request(&KeyPair::generate().unwrap());
        assert!(
            certify(&store, &authority, &ids[0], &key, NODE_LIFETIME)
                .await
                .is_err()
        );
        assert!(create_token(&store, "a b", DEFAULT_VALIDITY).await.is_err());
        assert!(create_token(&store, "a", Duration::ZERO).await.is_err());
    }
}
