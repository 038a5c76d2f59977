//! The command line of `server`, and what it means.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use clap::Parser;
use tracing::info;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::Label;
use tunnel_common::key::DataDir;
use tunnel_common::process::{self, Mistakes};
use tunnel_common::quic::Congestion;
use tunnel_server::admission::allow_list::AllowList;
use tunnel_server::admission::{Admission, Open};
use tunnel_server::config::{self, Config, DRAIN_GRACE, Suffixes};
use tunnel_server::proxies::TrustedProxy;
use tunnel_server::reset_keys::ResetKeys;

use self::certificate::Certificate;
use crate::clients::{self, Clients};

mod acme;
mod certificate;

/// Where the keys are, in the data folder, by which agents learn that the relay has crashed.
const RESET_KEY_FILE: &str = "reset.key";
/// The longest time that may be given to an end: an hour, as long as a silent visit lives.
const MAX_DRAIN_SECONDS: u64 = 3600;

/// The relay of a self-hosted reverse tunnel.
///
/// Without flags it runs in development mode: a self-signed certificate, any domain, URLs under
/// `localhost`.
#[derive(Debug, Parser)]
#[command(name = "server", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    clients: Option<Clients>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Address to listen on; `::` takes IPv4 in as well
    #[arg(long, default_value_t = Ipv4Addr::UNSPECIFIED.into())]
    bind_addr: IpAddr,
    /// UDP and TCP port for agents; 0 takes a free one
    #[arg(long, default_value_t = 4433)]
    api_port: u16,
    /// TCP port for visitors; 0 takes a free one
    #[arg(long, default_value_t = 8443)]
    pub_port: u16,
    /// Second TCP port for visitors, where certificate authorities validate; left out if it may not
    /// be bound
    #[arg(long, default_value_t = 443)]
    alpn_port: u16,
    /// Domain under which agents get their names; may be repeated. Without one, and without --acme-domain,
    /// any is served
    #[arg(long)]
    domain_suffix: Vec<Hostname>,
    #[command(flatten)]
    certificate: Certificate,
    /// Name or address by which agents reach this relay, for the command that is printed
    #[arg(long)]
    advertise_host: Option<String>,
    /// Port of the URLs, if visitors reach --pub-port by another number
    #[arg(long)]
    advertise_port: Option<u16>,
    /// Lets an agent in, by its id or by a file with an id a line; may be repeated. The relay is then
    /// closed to all others, as it is with a domain
    #[arg(long, value_name = "ID|FILE")]
    allow_client: Vec<String>,
    /// Lets every agent in, in spite of a domain
    #[arg(long, conflicts_with = "allow_client")]
    open: bool,
    /// Network (CIDR) or address of a proxy in front of the public ports; may be repeated. Its
    /// connections must begin with a PROXY protocol header (v1 or v2), which is believed
    #[arg(long, value_name = "CIDR")]
    trusted_proxy: Vec<TrustedProxy>,
    /// Folder for what must survive a restart [default: $STATE_DIRECTORY, $XDG_STATE_HOME/server or .]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Congestion control towards agents: bbr or cubic
    #[arg(long, default_value_t = Congestion::default())]
    congestion: Congestion,
    /// Mebibytes that visitors who do not read may pin [default: a quarter of the memory]
    #[arg(long)]
    memory_budget: Option<u64>,
    /// Address at which load balancers ask /healthz and /readyz over HTTP, host:port [default: none]
    #[arg(long, value_name = "ADDRESS")]
    admin_addr: Option<SocketAddr>,
    /// Seconds for which a relay that is to end still takes visitors, so that balancers and DNS notice
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_DRAIN_SECONDS))]
    drain_delay: u64,
    /// Seconds that visits then have to get the answers that they wait for
    #[arg(long, value_name = "SECONDS", default_value_t = DRAIN_GRACE.as_secs(), value_parser = clap::value_parser!(u64).range(..=MAX_DRAIN_SECONDS))]
    drain_grace: u64,
}

/// What the command line means.
#[derive(Debug)]
pub(crate) enum Task {
    /// Run a relay.
    Serve(Box<Setup>),
    /// Show or change who may register.
    Clients(Clients),
}

/// A relay to be run.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The relay's configuration.
    pub(crate) config: Config,
    /// The host of the client command that is printed.
    pub(crate) reached_at: String,
    /// Whether a public authority vouches for that host now: then agents need no fingerprint.
    pub(crate) is_vouched_for: bool,
}

impl Args {
    /// Reads the files that are named, and makes the relay's key if it has none.
    pub(crate) fn into_task(self) -> Result<Task, Mistakes> {
        match self.clients {
            Some(clients) => Ok(Task::Clients(clients)),
            None => Ok(Task::Serve(Box::new(self.serve.into_setup()?))),
        }
    }
}

impl Serve {
    fn into_setup(mut self) -> Result<Setup, Mistakes> {
        if self.domain_suffix.is_empty() {
            let certified = self.certificate.domain().cloned();
            self.domain_suffix.extend(certified);
        }
        let (data, reached_at, mut mistakes) = (self.data(), self.reached_at(), vec![]);
        if self.advertise_port == Some(0) {
            mistakes.push("--advertise-port: 0 is no port that a visitor could use".to_owned());
        }
        if self
            .advertise_host
            .as_deref()
            .is_some_and(|host| dialled(host).is_none())
        {
            mistakes.push("--advertise-host: this is no host name and no address".to_owned());
        }
        let certificate = self.certificate.chosen(&reached_at, &data, &mut mistakes);
        let admission = self
            .admission()
            .map_err(|error| mistakes.push(format!("{error:#}")))
            .ok();
        let reset_keys = ResetKeys::load(&data.path().join(RESET_KEY_FILE))
            .map_err(|error| mistakes.push(error.to_string()))
            .ok();
        let (Some(certificate), Some(admission), true) =
            (certificate, admission, mistakes.is_empty())
        else {
            return Err(Mistakes(mistakes));
        };
        let is_vouched_for = certificate.is_vouched_for(&reached_at);
        let mut config = Config::development(certificate.identity);
        config.certificate_files = certificate.files;
        config.acme = certificate.acme;
        config.bind_addr = self.bind_addr;
        config.api_port = self.api_port;
        config.pub_port = self.pub_port;
        config.alpn_port = Some(self.alpn_port);
        config.advertise_port = self.advertise_port;
        let own = self.advertise_host.iter();
        config.own_names = own.flat_map(|host| host.parse()).collect();
        config.admission = admission;
        config.reset_keys = reset_keys;
        config.trusted_proxies = self.trusted_proxy;
        config.congestion = self.congestion;
        config.max_visits = config::max_visits(process::raise_descriptor_limit());
        if !self.domain_suffix.is_empty() {
            config.suffixes = Suffixes::These(self.domain_suffix);
        }
        config.admin_addr = self.admin_addr;
        config.drain_delay = Duration::from_secs(self.drain_delay);
        config.drain_grace = Duration::from_secs(self.drain_grace);
        if let Some(mebibytes) = self.memory_budget {
            config.memory_budget = mebibytes.saturating_mul(1 << 20);
        }
        Ok(Setup {
            config,
            reached_at,
            is_vouched_for,
        })
    }

    fn data(&self) -> DataDir {
        DataDir::chosen(self.data_dir.as_deref(), "server")
    }

    /// A relay with a real domain is closed: strangers' certificates would use up what a certificate
    /// authority grants the domain.
    fn admission(&self) -> anyhow::Result<Arc<dyn Admission>> {
        let is_closed = !self.domain_suffix.is_empty() || !self.allow_client.is_empty();
        if self.open || !is_closed {
            return Ok(Arc::new(Open::default()));
        }
        let data = self.data();
        let (mut files, mut ids) = (vec![clients::file_in(data.path())], HashSet::new());
        for allowed in &self.allow_client {
            match allowed.parse::<Label>() {
                Ok(id) => drop(ids.insert(id)),
                Err(_) => files.push(existing(data.file(allowed.as_ref()))?),
            }
        }
        let how = clients::command_to_allow(data.path());
        let list = AllowList::load(files, ids, &how)?;
        info!(
            allowed = list.len(),
            "only agents that are allowed may register; to allow one: {how} ID"
        );
        Ok(Arc::new(list))
    }

    /// Where an agent would dial: what the operator says, the name that is certified, a domain of the relay,
    /// or this machine.
    fn reached_at(&self) -> String {
        let certified = self.certificate.domain();
        let domain = certified.or(self.domain_suffix.first());
        let domain = domain.map(ToString::to_string);
        let address = (!self.bind_addr.is_unspecified()).then(|| in_brackets(self.bind_addr));
        let advertised = self.advertise_host.as_deref().and_then(dialled);
        let known = advertised.or(domain).or(address);
        known.unwrap_or_else(|| Ipv4Addr::LOCALHOST.to_string())
    }
}

fn existing(path: PathBuf) -> anyhow::Result<PathBuf> {
    match path.metadata() {
        Ok(_) => Ok(path),
        Err(error) => Err(anyhow!(
            "--allow-client: {} is neither an id nor a file: {error}",
            path.display()
        )),
    }
}

/// A host as it is written before a port; `None` if nobody could dial it.
fn dialled(host: &str) -> Option<String> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare.unwrap_or(host).parse() {
        Ok(address) => Some(in_brackets(address)),
        Err(_) => host.parse::<Hostname>().ok().map(|name| name.to_string()),
    }
}

fn in_brackets(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rcgen::{CertificateParams, date_time_ymd};
    use tempfile::TempDir;
    use tunnel_common::acme::authority::DirectoryUrl;
    use tunnel_common::key::{self, IfMissing, fingerprint};

    use super::*;

    fn parse(flags: &str) -> Result<Setup, Mistakes> {
        parse_in(tempfile::tempdir().expect("a folder").path(), flags)
    }

    fn parse_in(folder: &Path, flags: &str) -> Result<Setup, Mistakes> {
        let folder = folder.to_str().expect("UTF-8");
        let data_dir = ["server", "--data-dir", folder];
        let args = data_dir.into_iter().chain(flags.split_whitespace());
        match Args::try_parse_from(args).expect("parses").into_task()? {
            Task::Serve(setup) => Ok(*setup),
            Task::Clients(clients) => panic!("a relay was asked for, not {clients:?}"),
        }
    }

    /// A folder with a certificate for `t.example` that is valid until this year.
    fn certified_until(year: i32) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join(clients::KEY_FILE);
        let (key, _) = key::load(&key, IfMissing::required(false)).expect("a key");
        let mut params = CertificateParams::new(["t.example".to_owned()]).expect("a name");
        params.not_after = date_time_ymd(year, 1, 1);
        let chain = params.self_signed(&key).expect("signs").pem();
        fs::write(folder.path().join("server_acme_cert.pem"), chain).expect("writes");
        folder
    }

    #[test]
    fn no_flags_is_development_mode() {
        let parsed = parse("").expect("is complete");
        let config = parsed.config;
        assert_eq!(
            (config.api_port, config.pub_port, config.alpn_port),
            (4433, 8443, Some(443))
        );
        assert_eq!(config.suffixes, Suffixes::Any);
        assert!(config.reset_keys.is_some() && config.certificate_files.is_none());
        assert!(config.acme.is_none() && !parsed.is_vouched_for);
        assert_eq!(parsed.reached_at, "127.0.0.1");
    }

    #[test]
    fn flags_reach_the_configuration() {
        let flags = "--bind-addr :: --api-port 1 --pub-port 2 --alpn-port 3 --domain-suffix A.example \
                     --domain-suffix b.example --advertise-port 443 --memory-budget 5 --congestion cubic \
                     --trusted-proxy 10.0.0.0/8 --trusted-proxy 2001:db8::1 \
                     --admin-addr [::1]:9 --drain-delay 7 --drain-grace 8";
        let Setup {
            config, reached_at, ..
        } = parse(flags).expect("is complete");
        assert_eq!(
            (config.api_port, config.pub_port, config.alpn_port),
            (1, 2, Some(3))
        );
        let suffixes = ["a.example", "b.example"].map(|s| s.parse().expect("a host name"));
        assert_eq!(config.suffixes, Suffixes::These(suffixes.into()));
        assert_eq!(
            (config.advertise_port, config.memory_budget),
            (Some(443), 5 << 20)
        );
        assert_eq!(config.congestion, Congestion::Cubic);
        let proxies = ["10.0.0.0/8", "2001:db8::1/128"].map(|p| p.parse().expect("a network"));
        assert_eq!(config.trusted_proxies, proxies);
        assert_eq!(config.admin_addr, "[::1]:9".parse().ok());
        assert_eq!(
            (config.drain_delay, config.drain_grace),
            (Duration::from_secs(7), Duration::from_secs(8))
        );
        assert_eq!(reached_at, "a.example");
    }

    #[test]
    fn a_domain_to_certify_is_the_relays_name_its_suffix_and_where_agents_dial() {
        let parsed =
            parse("--acme-domain T.example --acme-email me@t.example").expect("is complete");
        let host: Hostname = "t.example".parse().expect("a host name");
        assert_eq!(parsed.config.suffixes, Suffixes::These(vec![host.clone()]));
        assert_eq!(parsed.reached_at, "t.example");
        assert!(!parsed.is_vouched_for, "nobody vouches yet");
        let acme = parsed.config.acme.expect("it orders");
        assert_eq!((acme.host, acme.found.is_none()), (host, true));
        let identity = parsed.config.identity.fingerprint();
        assert_eq!(identity, Some(fingerprint(&acme.key)), "for its own key");
        let (ca, authority) = (&acme.ca, &acme.ca.authority);
        assert_eq!(authority.directory, DirectoryUrl::lets_encrypt());
        assert_eq!(authority.email.as_deref(), Some("me@t.example"));
        assert_eq!((ca.validation_port, acme.renew_days), (443, None));
        let file = ca.credentials.path();
        assert!(file.ends_with("server_acme_creds.json") && file.parent() == acme.file.parent());
    }

    #[test]
    fn a_fingerprint_is_needed_where_no_public_authority_vouches_for_the_printed_name_now() {
        let (there, over) = (certified_until(2999), certified_until(2020));
        for flags in [
            "--acme-domain t.example --acme-staging",
            "--acme-domain t.example --acme-directory https://ca.example/dir",
            "--acme-domain t.example --advertise-host other.example",
            "--domain-suffix t.example",
        ] {
            let parsed = parse_in(there.path(), flags).expect("is complete");
            assert!(!parsed.is_vouched_for, "{flags}");
        }
        let flags = "--acme-domain t.example --domain-suffix s.example --acme-renew-days 10 \
                     --acme-profile shortlived --acme-validation-port 5001";
        for folder in [tempfile::tempdir().expect("a folder"), over] {
            let parsed = parse_in(folder.path(), flags).expect("is complete");
            assert!(!parsed.is_vouched_for, "there is none");
        }
        let parsed = parse_in(there.path(), flags).expect("is complete");
        assert!(parsed.is_vouched_for && parsed.reached_at == "t.example");
        let suffix = "s.example".parse().expect("a host name");
        assert_eq!(parsed.config.suffixes, Suffixes::These(vec![suffix]));
        let acme = parsed.config.acme.expect("it orders");
        assert_eq!((acme.ca.validation_port, acme.renew_days), (5001, Some(10)));
        assert_eq!(acme.ca.authority.profile.as_deref(), Some("shortlived"));
    }

    #[test]
    fn what_makes_no_sense_about_an_authority_is_told_with_the_other_mistakes() {
        let mistakes = parse(
            "--acme-domain t.example --acme-email nobody --acme-directory ca.example \
             --acme-ca-root no-such.pem --advertise-port 0",
        );
        let text = mistakes.expect_err("is wrong").to_string();
        for flag in [
            "--acme-email",
            "--acme-directory",
            "--acme-ca-root",
            "--advertise-port",
        ] {
            assert!(text.contains(flag), "{flag}: {text}");
        }
        for (flags, why) in [
            ("--acme-email me@t.example", "--acme-domain"),
            ("--acme-staging", "--acme-domain"),
            (
                "--acme-domain t.example --acme-eab-kid k",
                "--acme-eab-hmac-file",
            ),
            ("--acme-domain t.example --acme-renew-days 0", "1..=3650"),
            (
                "--acme-domain t.example --tls-cert c --tls-key k",
                "--tls-cert",
            ),
            (
                "--acme-domain t.example --acme-staging --acme-directory https://ca.example",
                "--acme-staging",
            ),
        ] {
            let args = ["server"].into_iter().chain(flags.split_whitespace());
            let refused = Args::try_parse_from(args).expect_err(flags).to_string();
            assert!(refused.contains(why), "{flags}: {refused}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mistakes = parse("--advertise-port 0 --tls-cert no-such.pem --tls-key no-such-key.pem");
        let text = mistakes.expect_err("is wrong").to_string();
        assert!(
            text.contains("--advertise-port") && text.contains("no-such.pem"),
            "{text}"
        );
        let lonely = Args::try_parse_from(["server", "--tls-cert", "x.pem"]);
        assert!(
            lonely
                .expect_err("needs a key")
                .to_string()
                .contains("--tls-key")
        );
    }

    #[test]
    fn an_address_is_printed_so_that_it_can_be_pasted() {
        let reached = |flags| parse(flags).expect("is complete").reached_at;
        assert_eq!(reached("--bind-addr ::1"), "[::1]");
        assert_eq!(reached("--bind-addr 192.0.2.1"), "192.0.2.1");
        assert_eq!(
            reached("--bind-addr ::1 --advertise-host relay.example"),
            "relay.example"
        );
    }
}
