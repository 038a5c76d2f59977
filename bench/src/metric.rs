//! The figures, by name and unit.

use crate::weather::Weather;

/// One kind of figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Requests a second of two keep-alive visitors; of sixty-four.
    RateTwo,
    RateMany,
    /// How long an answer takes, in milliseconds.
    P50Two,
    P99Two,
    P50Many,
    P99Many,
    /// Microseconds of relay, agent and nginx for a request of the sixty-four.
    CpuPerRequest,
    /// New TLS connections a second, one request each.
    NewPerSecond,
    /// Microseconds for each.
    CpuPerConnection,
    /// Gigabits a second.
    Download,
    EightDownloads,
    Upload,
    /// Seconds for a gigabyte.
    CpuPerGbDown,
    CpuPerGbEight,
    CpuPerGbUp,
    /// Kibibytes for a visitor who has had an answer, and now only stays.
    IdleRelay,
    IdleAgent,
    /// Milliseconds of sixty-four visitors over a line, alone and beside two downloads.
    LineP50(Weather),
    LineP99(Weather),
    BesideP50(Weather),
    BesideP99(Weather),
    /// Megabits a second of one download over a line.
    LineDownload(Weather),
    /// Kibibytes of the relay for each of so many; of the agent.
    RelayMemory(Many),
    AgentMemory(Many),
    /// Requests a second while there are so many, and how long the slowest hundredth takes.
    Rate(Many),
    P99(Many),
    /// Microseconds of relay and agent for a request, of the relay in a second for an agent that only stays.
    Cpu(Many),
    /// Milliseconds of the relay for each agent that comes.
    Coming(Many),
}

/// How many there are of those whose number grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Many {
    Agents(u32),
    Visitors(u32),
}

impl Many {
    /// Its name for people.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Agents(count) => format!("{count} agents"),
            Self::Visitors(1) => "1 visitor".to_owned(),
            Self::Visitors(count) => format!("{count} visitors"),
        }
    }

    fn key(self) -> String {
        match self {
            Self::Agents(count) => format!("agents_{count}"),
            Self::Visitors(count) => format!("visitors_{count}"),
        }
    }
}

impl Metric {
    /// Its name in files.
    pub(crate) fn key(self) -> String {
        let name = match self {
            Self::RateTwo => "requests_per_second_2",
            Self::RateMany => "requests_per_second_64",
            Self::P50Two => "p50_ms_2",
            Self::P99Two => "p99_ms_2",
            Self::P50Many => "p50_ms_64",
            Self::P99Many => "p99_ms_64",
            Self::CpuPerRequest => "cpu_us_per_request",
            Self::NewPerSecond => "new_connections_per_second",
            Self::CpuPerConnection => "cpu_us_per_connection",
            Self::Download => "download_gbit_s",
            Self::EightDownloads => "eight_downloads_gbit_s",
            Self::Upload => "upload_gbit_s",
            Self::CpuPerGbDown => "cpu_s_per_gb_download",
            Self::CpuPerGbEight => "cpu_s_per_gb_eight_downloads",
            Self::CpuPerGbUp => "cpu_s_per_gb_upload",
            Self::IdleRelay => "idle_visitor_relay_kib",
            Self::IdleAgent => "idle_visitor_agent_kib",
            Self::LineP50(weather) => return format!("small_p50_ms_{}", weather.key()),
            Self::LineP99(weather) => return format!("small_p99_ms_{}", weather.key()),
            Self::BesideP50(weather) => return format!("beside_p50_ms_{}", weather.key()),
            Self::BesideP99(weather) => return format!("beside_p99_ms_{}", weather.key()),
            Self::LineDownload(weather) => return format!("download_mbit_s_{}", weather.key()),
            Self::RelayMemory(many) => return format!("{}_relay_kib_each", many.key()),
            Self::AgentMemory(many) => return format!("{}_agent_kib_each", many.key()),
            Self::Rate(many) => return format!("{}_requests_per_second", many.key()),
            Self::P99(many) => return format!("{}_p99_ms", many.key()),
            Self::Cpu(many) => return format!("{}_cpu_us", many.key()),
            Self::Coming(many) => return format!("{}_coming_cpu_ms", many.key()),
        };
        name.to_owned()
    }
}
