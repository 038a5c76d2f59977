//! The certificate for a CSR.

use data_encoding::BASE64URL_NOPAD;
use rcgen::{
    CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, PublicKeyData as _, SanType,
    SerialNumber,
};

use super::answer::{Problem, problem};
use super::seen::SeenCsr;
use super::state::State;

/// The first bit is set, so that DER puts a zero before the number: it belongs to the id too.
const SERIAL_BEGIN: [u8; 1] = [0x80];

/// Signs, and gives the chain in PEM. The CSR must be for these hosts, no more and no less.
pub(super) fn issue(state: &mut State, csr: &[u8], hosts: &[String]) -> Result<String, Problem> {
    let refused = |error: rcgen::Error| problem("badCSR", error.to_string());
    let mut csr = CertificateSigningRequestParams::from_der(&csr.into()).map_err(refused)?;
    let seen = SeenCsr {
        hosts: hosts_of(&csr)?,
        subject_is_empty: csr.params.distinguished_name.iter().next().is_none(),
        spki: csr.public_key.subject_public_key_info(),
    };
    if sorted(&seen.hosts) != sorted(hosts) {
        return Err(problem("badCSR", "other hosts than the order's"));
    }
    let serial = [&SERIAL_BEGIN[..], &fastrand::u64(..).to_be_bytes()].concat();
    let now = state.now();
    let params = &mut csr.params;
    params.not_before = now.into();
    params.not_after = (now + state.rules.lifetime).into();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.is_ca = IsCa::NoCa;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let leaf = csr.signed_by(state.authority.issuer()).map_err(refused)?;
    let encoded = [&[0][..], &serial].concat();
    let id = id(state.authority.key_id(), &encoded);
    state.issued.push(id);
    state.seen_csrs.push(seen);
    Ok(leaf.pem() + &state.authority.pem())
}

fn hosts_of(csr: &CertificateSigningRequestParams) -> Result<Vec<String>, Problem> {
    let host = |name: &SanType| match name {
        SanType::DnsName(host) => Ok(host.as_str().to_owned()),
        _ => Err(problem("badCSR", "a name that is no host")),
    };
    csr.params.subject_alt_names.iter().map(host).collect()
}

fn sorted(hosts: &[String]) -> Vec<&String> {
    let mut hosts: Vec<&String> = hosts.iter().collect();
    hosts.sort();
    hosts
}

/// How renewal information names a certificate (RFC 9773, 4.1).
fn id(authority_key_id: &[u8], serial: &[u8]) -> String {
    let encode = |bytes| BASE64URL_NOPAD.encode(bytes);
    format!("{}.{}", encode(authority_key_id), encode(serial))
}
