use std::fs;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::CertificateError;

use super::*;

const NAME: &str = "nas.lan";

fn key() -> KeyPair {
    tls::generate_key().expect("a key")
}

fn named() -> CertificateParams {
    CertificateParams::new([NAME.to_owned()]).expect("a name")
}

/// A certificate for [`NAME`] that signs itself, as an authority or not.
fn self_signed(is_ca: IsCa) -> rcgen::Certificate {
    let mut params = named();
    params.is_ca = is_ca;
    params.self_signed(&key()).expect("signs")
}

fn listed(pem: &str) -> Result<Listed, BadCaFile> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ca.pem");
    fs::write(&path, pem).expect("writes");
    Listed::from_pem_file(&path)
}

fn verify(trust: &LocalTrust, shown: &CertificateDer<'_>, name: &str) -> Result<(), Error> {
    let name = ServerName::try_from(name).expect("a name");
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let verifier = trust.verifier();
    verifier
        .verify_server_cert(shown, &[], &name, &[], now)
        .map(|_| ())
}

#[test]
fn a_listed_authority_vouches_for_the_name_and_no_other() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = key();
    let authority = params.self_signed(&authority_key).expect("signs");
    let issuer = Issuer::from_params(&params, &authority_key);
    let leaf = named().signed_by(&key(), &issuer).expect("signs");

    let other = self_signed(IsCa::NoCa).pem();
    let both = LocalTrust::Listed(listed(&(other + &authority.pem())).expect("two"));
    assert_eq!(verify(&both, leaf.der(), NAME), Ok(()));
    let error = verify(&both, leaf.der(), "other.lan").expect_err("another name");
    assert!(matches!(
        error,
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })
    ));
    let unknown = Err(CertificateError::UnknownIssuer.into());
    assert_eq!(verify(&LocalTrust::PublicCa, leaf.der(), NAME), unknown);
    assert_eq!(verify(&LocalTrust::Anything, leaf.der(), NAME), Ok(()));
}

#[test]
fn a_self_signed_certificate_is_known_by_itself_and_another_is_not() {
    for is_ca in [
        IsCa::NoCa,
        IsCa::ExplicitNoCa,
        IsCa::Ca(BasicConstraints::Unconstrained),
    ] {
        let own = self_signed(is_ca);
        let trust = LocalTrust::Listed(listed(&own.pem()).expect("one"));
        assert_eq!(verify(&trust, own.der(), NAME), Ok(()), "{is_ca:?}");
        assert_eq!(verify(&trust, own.der(), "other.lan"), Ok(()), "{is_ca:?}");
        let other = self_signed(is_ca);
        verify(&trust, other.der(), NAME).expect_err("another key");
    }
}

#[test]
fn a_file_without_a_usable_certificate_is_refused_by_name() {
    let missing = Listed::from_pem_file(Path::new("/nowhere/ca.pem")).expect_err("is missing");
    assert!(missing.to_string().contains("/nowhere/ca.pem"), "{missing}");
    let only_a_key = listed(&key().serialize_pem());
    assert!(matches!(only_a_key, Err(BadCaFile::Empty(_))));
    assert!(matches!(listed("rubbish"), Err(BadCaFile::Empty(_))));
    let good = self_signed(IsCa::NoCa).pem();
    let cut = format!("{good}-----BEGIN CERTIFICATE-----\nAAAA\n");
    assert!(matches!(listed(&cut), Err(BadCaFile::Pem { .. })));
    let hollow = format!("{good}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let error = listed(&hollow).expect_err("is hollow").to_string();
    assert!(error.starts_with("certificate 2 in "), "{error}");
}
