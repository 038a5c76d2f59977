//! Our account at an authority: found, finished or made.

use data_encoding::BASE64URL_NOPAD;
use instant_acme::{Account, AccountCredentials, Error, Key, NewAccount};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::json;
use tracing::info;

use super::authority::{Authority, DirectoryUrl, ExternalAccount};
use super::client::CaClient;
use super::credentials::{CredentialsFile, StoredAccount};
use super::failure::Failure;
use super::nonce::with_nonce;

/// Our account at `authority`, kept in `file`. It is made if there is none, which accepts the authority's
/// terms of service. Wherever a process is killed no second one is made, unless it is bound to an external
/// account: then the library draws the key, and it is on the disk only behind the authority's answer.
pub(super) async fn account(
    authority: &Authority,
    file: &CredentialsFile,
    client: &CaClient,
) -> Result<Account, Failure> {
    let _turn = file.turn().await;
    let stored = file.load().await?;
    let is_bound = authority.external_account.is_some();
    let account = match stored.account(&authority.directory) {
        Some(stored) if stored.id.is_some() => restore(stored, client).await,
        // A key that is not known there can not be bound by the library.
        _ if is_bound => {
            let bound = bind(authority, file, client).await;
            // An answer that is lost may be an account.
            return bound.map_err(|broken| broken.in_order(client));
        }
        Some(stored) => make(authority, stored.clone(), file, client).await,
        None => make(authority, draw_key(authority, file).await?, file, client).await,
    };
    account.map_err(|broken| broken.before_order(client))
}

/// The account that the authority has told us, if it has.
pub(super) async fn known(
    authority: &Authority,
    file: &CredentialsFile,
    client: &CaClient,
) -> Result<Option<Account>, Failure> {
    let stored = file.load().await?;
    let known = stored.account(&authority.directory);
    match known.filter(|stored| stored.id.is_some()) {
        Some(stored) => {
            let restored = restore(stored, client).await;
            restored
                .map(Some)
                .map_err(|broken| broken.before_order(client))
        }
        None => Ok(None),
    }
}

/// Forgets that the authority knows our account: it says that it does not. The key stays, and with it the
/// next one is made.
pub(super) async fn forget(
    directory: &DirectoryUrl,
    file: &CredentialsFile,
) -> Result<(), Failure> {
    let directory = directory.clone();
    file.update(move |stored| {
        for account in &mut stored.accounts {
            if account.directory == directory.as_str() {
                account.id = None;
            }
        }
    })
    .await
}

/// What may go wrong with an account.
enum Broken {
    Ca(Error),
    File(Failure),
}

impl Broken {
    fn before_order(self, client: &CaClient) -> Failure {
        match self {
            Self::Ca(error) => Failure::before_order(error, client.pause()),
            Self::File(failure) => failure,
        }
    }

    fn in_order(self, client: &CaClient) -> Failure {
        match self {
            Self::Ca(error) => Failure::in_order(error, client.pause()),
            Self::File(failure) => failure,
        }
    }
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Ca(error)
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::File(failure)
    }
}

/// An account that the authority has told us. It is not asked whether it still knows it.
async fn restore(stored: &StoredAccount, client: &CaClient) -> Result<Account, Broken> {
    let credentials = json!({
        "id": stored.id,
        "key_pkcs8": stored.key_pkcs8,
        "directory": stored.directory,
    });
    let credentials: AccountCredentials =
        serde_json::from_value(credentials).map_err(Error::Json)?;
    let builder = Account::builder_with_http(Box::new(client.clone()));
    Ok(builder.from_credentials(credentials).await?)
}

/// A key for an account that is not made yet, on the disk. If another process has drawn one meanwhile, that.
async fn draw_key(authority: &Authority, file: &CredentialsFile) -> Result<StoredAccount, Failure> {
    let (_, key) = Key::generate_pkcs8().map_err(|error| Failure::before_order(error, None))?;
    let drawn = StoredAccount {
        directory: authority.directory.to_string(),
        key_pkcs8: BASE64URL_NOPAD.encode(key.secret_pkcs8_der()),
        id: None,
    };
    let directory = authority.directory.clone();
    file.update(move |stored| match stored.account(&directory) {
        Some(other) => other.clone(),
        None => {
            stored.put(drawn.clone());
            drawn
        }
    })
    .await
}

/// The account of this key, which may be there already: an authority makes one for each key.
async fn make(
    authority: &Authority,
    stored: StoredAccount,
    file: &CredentialsFile,
    client: &CaClient,
) -> Result<Account, Broken> {
    let (account, credentials) = with_nonce!(make_once(&stored, client).await)?;
    keep(authority, &account, &credentials, file).await?;
    if let Some(contact) = contact(authority)
        && let Err(error) = with_nonce!(account.update_contacts(&[&contact]).await)
    {
        // It certifies all the same.
        info!("the certificate authority did not take the e-mail address: {error}");
    }
    Ok(account)
}

async fn make_once(
    stored: &StoredAccount,
    client: &CaClient,
) -> Result<(Account, AccountCredentials), Error> {
    let pkcs8 = BASE64URL_NOPAD.decode(stored.key_pkcs8.as_bytes());
    let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8.map_err(|_| Error::KeyRejected)?);
    let key = Key::from_pkcs8_der(pkcs8.clone_key())?;
    let builder = Account::builder_with_http(Box::new(client.clone()));
    let directory = stored.directory.clone();
    builder
        .create_from_key((key, pkcs8.into()), directory)
        .await
}

/// A new account that is bound to the customer's.
async fn bind(
    authority: &Authority,
    file: &CredentialsFile,
    client: &CaClient,
) -> Result<Account, Broken> {
    let (account, credentials) = with_nonce!(bind_once(authority, client).await)?;
    keep(authority, &account, &credentials, file).await?;
    Ok(account)
}

async fn bind_once(
    authority: &Authority,
    client: &CaClient,
) -> Result<(Account, AccountCredentials), Error> {
    let contact = contact(authority);
    let contacts: Vec<_> = contact.iter().map(String::as_str).collect();
    let wanted = NewAccount {
        contact: &contacts,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let external = authority
        .external_account
        .as_ref()
        .map(ExternalAccount::key);
    let builder = Account::builder_with_http(Box::new(client.clone()));
    let directory = authority.directory.to_string();
    builder.create(&wanted, directory, external.as_ref()).await
}

fn contact(authority: &Authority) -> Option<String> {
    let email = authority.email.as_ref()?;
    Some(format!("mailto:{email}"))
}

/// Stores an account that the authority has told us.
async fn keep(
    authority: &Authority,
    account: &Account,
    credentials: &AccountCredentials,
    file: &CredentialsFile,
) -> Result<(), Failure> {
    let stored = StoredAccount {
        directory: authority.directory.to_string(),
        key_pkcs8: BASE64URL_NOPAD.encode(credentials.private_key().secret_pkcs8_der()),
        id: Some(account.id().to_owned()),
    };
    file.update(move |all| all.put(stored)).await?;
    let (id, file) = (account.id(), file.path().display());
    info!(%id, "an account at the certificate authority, kept in {file}; its terms of service are accepted");
    Ok(())
}
