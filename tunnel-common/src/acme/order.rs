//! One order for one host name, from the wish to the chain (RFC 8555, 7.4).
//!
//! ```text
//!  new order ──▶ pending ── our answer is up, "come" ──▶ ready ── CSR ──▶ processing ──▶ valid: the chain
//!                    └──────────── invalid: why ◀──────────┘
//! ```

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tracing::debug;

use super::chain::Chain;
use super::challenge::Answer;
use super::client::CaClient;
use super::failure::{Failure, shown};
use super::nonce::with_nonce;
use super::site::Site;
use crate::clock::Clock;
use crate::hostname::Hostname;
use crate::tls::CertificateError;

/// How the authority is asked whether it has come to a decision. Validation from several places takes seconds;
/// one that takes minutes is tried anew.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(100))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// What to say of a certificate that is being replaced where that is not understood (RFC 9773, 5).
const NOT_REPLACED: [&str; 2] = [
    "urn:ietf:params:acme:error:alreadyReplaced",
    "urn:ietf:params:acme:error:malformed",
];

/// What the library says of an authority that takes no notice of what is replaced.
const NOT_REFLECTED: &str = "replaces field mismatch";

/// What is to be certified.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The name.
    pub host: &'a Hostname,
    /// Whose key it is to be for.
    pub key: &'a KeyPair,
    /// Which certificate it takes the place of: authorities have other limits for renewals.
    pub replaces: Option<&'a Chain>,
}

/// Orders what is wished. Dropping the future withdraws our answer; the order is left to run out.
pub(super) async fn order<S: Site>(
    account: &Account,
    (wish, profile): (Wish<'_>, Option<&str>),
    site: &S,
    client: &CaClient,
    clock: &Clock,
) -> Result<Chain, Failure> {
    let failed = |error| Failure::in_order(error, client.pause());
    let mut order = begin(account, wish, profile).await.map_err(failed)?;
    if order.state().status == OrderStatus::Pending {
        validate(&mut order, wish.host, site, client, clock).await?;
    }
    let csr = csr(wish).map_err(CertificateError::from)?;
    let finalized = with_nonce!(order.finalize_csr(&csr).await);
    finalized.map_err(failed)?;
    let pem = with_nonce!(order.poll_certificate(&PATIENCE).await);
    Ok(Chain::parse(&pem.map_err(failed)?, wish.key)?.for_host(wish.host)?)
}

async fn begin(account: &Account, wish: Wish<'_>, profile: Option<&str>) -> Result<Order, Error> {
    let identifiers = [Identifier::Dns(wish.host.to_string())];
    let plain = || {
        let order = NewOrder::new(&identifiers);
        match profile {
            Some(profile) => order.profile(profile),
            None => order,
        }
    };
    let leaf = wish.replaces.and_then(|chain| chain.certified.cert.first());
    let replaced = leaf.and_then(|leaf| CertificateIdentifier::try_from(leaf).ok());
    if let Some(replaced) = replaced {
        let order = plain().replaces(replaced);
        match with_nonce!(account.new_order(&order).await) {
            Err(error) if is_about_replacing(&error) => debug!("ordered as a new one: {error}"),
            begun => return begun,
        }
    }
    with_nonce!(account.new_order(&plain()).await)
}

fn is_about_replacing(error: &Error) -> bool {
    match error {
        Error::Unsupported(_) => true,
        // It was ordered all the same, and must be ordered again to be had.
        Error::Other(error) => error.to_string().starts_with(NOT_REFLECTED),
        Error::Api(problem) => {
            let r#type = problem.r#type.as_deref();
            r#type.is_some_and(|r#type| NOT_REPLACED.contains(&r#type))
        }
        _ => false,
    }
}

/// Shows our answer while the authority comes to look, and waits for what it makes of it.
async fn validate<S: Site>(
    order: &mut Order,
    host: &Hostname,
    site: &S,
    client: &CaClient,
    clock: &Clock,
) -> Result<(), Failure> {
    let failed = |error| Failure::in_order(error, client.pause());
    let authorization = with_nonce!(fetch_authorization(order).await);
    let _presented = match authorization.map_err(failed)? {
        AuthorizationStatus::Valid => None,
        _ => Some(invite(order, host, site, client, clock).await?),
    };
    match with_nonce!(order.poll_ready(&PATIENCE).await) {
        Ok(OrderStatus::Invalid) => Err(Failure::Validation(why_invalid(order).await)),
        Ok(_) => Ok(()),
        Err(Error::Api(problem)) if order.state().status == OrderStatus::Invalid => {
            Err(Failure::Validation(shown(problem)))
        }
        Err(error) => Err(failed(error)),
    }
}

/// The order has one name, and so one authorization.
async fn fetch_authorization(order: &mut Order) -> Result<AuthorizationStatus, Error> {
    match order.authorizations().next().await {
        Some(authorization) => authorization.map(|authorization| authorization.status),
        None => Err(Error::Str("an order without an authorization")),
    }
}

/// Shows our answer, and tells the authority that it may come.
async fn invite<S: Site>(
    order: &mut Order,
    host: &Hostname,
    site: &S,
    client: &CaClient,
    clock: &Clock,
) -> Result<S::Presented, Failure> {
    let failed = |error| Failure::in_order(error, client.pause());
    let mut authorizations = order.authorizations();
    let authorization = authorizations.next().await;
    let mut authorization = authorization.ok_or(Failure::NoChallenge)?.map_err(failed)?;
    let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
    let mut challenge = challenge.ok_or(Failure::NoChallenge)?;
    let mut digest = [0; 32];
    let authorized = challenge.key_authorization().digest();
    digest.copy_from_slice(authorized.as_ref());
    let presented = site.present(Answer::new(host, &digest, clock)?).await?;
    let told = with_nonce!(challenge.set_ready().await);
    match told {
        Ok(()) => Ok(presented),
        Err(error) => Err(failed(error)),
    }
}

/// What the authority did not like.
async fn why_invalid(order: &mut Order) -> String {
    let told = with_nonce!(refresh(order).await).ok().flatten();
    told.map_or_else(|| "it does not say why".to_owned(), shown)
}

async fn refresh(order: &mut Order) -> Result<Option<String>, Error> {
    let mut authorizations = order.authorizations();
    let Some(mut authorization) = authorizations.next().await.transpose()? else {
        return Ok(None);
    };
    let state = authorization.refresh().await?;
    let mut errors = state
        .challenges
        .iter()
        .filter_map(|challenge| challenge.error.as_ref());
    Ok(errors.next().map(ToString::to_string))
}

/// The request for a certificate: the name and the key, and an empty subject, since authorities fill in what
/// they like.
fn csr(wish: Wish<'_>) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new([wish.host.to_string()])?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(wish.key)?.der().to_vec())
}
