//! A chart of horizontal bars as SVG: groups of bars, above them which colour means what.
//!
//! Legible on light and on dark pages, by itself where the page says which it is and by middle tones
//! where it does not; with the reader's own font.

use std::fmt::Write as _;

// All in pixels.
const LABELS: f64 = 400.0;
const BARS: f64 = 400.0;
const FIGURES: f64 = 60.0;
const HEAD: f64 = 56.0;
const BAR: f64 = 11.0;
/// Between two groups.
const GAP: f64 = 12.0;
const FOOT: f64 = 30.0;
/// From one name of the legend to the next, by its letters.
const LEGEND_LETTER: f64 = 7.5;
const LEGEND_GAP: f64 = 30.0;
/// So many parts has the scale.
const TICKS: u32 = 5;

const STYLE: &str = "\
<style>
text { font: 13px sans-serif; fill: #57606a }
.figure { font-size: 11px }
.head { font-weight: bold }
.scale { stroke: #8c959f; stroke-width: 0.5; opacity: 0.5 }
.blue { fill: #2f81f7 }
.orange { fill: #d98324 }
.grey { fill: #8c959f }
.green { fill: #3f9a5b }
.violet { fill: #9a6dd7 }
@media (prefers-color-scheme: dark) { text { fill: #a8b3be } }
</style>
";

/// A chart.
#[derive(Debug)]
pub struct Chart {
    /// Its head, and what it is called where it can not be seen.
    pub title: &'static str,
    /// Which colour means what.
    pub legend: Vec<(Colour, &'static str)>,
    /// What the length of a bar means.
    pub scale: Scale,
    /// From the top.
    pub groups: Vec<Group>,
}

/// What the length of a bar means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The same in all groups, and numbers below.
    Shared,
    /// The longest bar of each group is as long as there is room: their units differ.
    Own,
}

/// Bars that stand together.
#[derive(Debug)]
pub struct Group {
    /// What is beside them.
    pub label: String,
    /// From the top.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Debug)]
pub struct Bar {
    /// Of whom.
    pub colour: Colour,
    /// Its length; not negative.
    pub value: f64,
    /// What stands behind it.
    pub figure: String,
}

/// A colour that can be told from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Colour {
    Blue,
    Orange,
    Grey,
    Green,
    Violet,
}

impl Colour {
    fn class(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Orange => "orange",
            Self::Grey => "grey",
            Self::Green => "green",
            Self::Violet => "violet",
        }
    }
}

impl Group {
    fn longest(&self) -> f64 {
        self.bars.iter().map(|bar| bar.value).fold(0.0, f64::max)
    }

    fn height(&self) -> f64 {
        BAR * self.bars.len() as f64 + GAP
    }
}

// A String takes everything: nothing that is written to one can fail.

impl Chart {
    /// The chart as SVG. A group without a bar is left out.
    pub fn svg(&self) -> String {
        let groups = || self.groups.iter().filter(|group| !group.bars.is_empty());
        let most = groups().map(Group::longest).fold(0.0, f64::max);
        // A whole number for each part.
        let shared = (most / f64::from(TICKS)).ceil().max(1.0) * f64::from(TICKS);
        let width = LABELS + BARS + FIGURES;
        let bottom = HEAD + groups().map(Group::height).sum::<f64>();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n{STYLE}",
            height = bottom + FOOT,
            title = self.title,
        );
        self.head(&mut svg);
        if self.scale == Scale::Shared {
            ticks(&mut svg, shared, bottom);
        }
        let mut top = HEAD;
        for group in groups() {
            let scale = match self.scale {
                Scale::Shared => shared,
                Scale::Own => group.longest().max(f64::MIN_POSITIVE),
            };
            bars(&mut svg, group, top, scale);
            top += group.height();
        }
        svg + "</svg>\n"
    }

    fn head(&self, svg: &mut String) {
        let title = self.title;
        let _ = writeln!(svg, "<text class=\"head\" x=\"8\" y=\"18\">{title}</text>");
        // Where the bars begin, or farther left if they would not fit.
        let long = |name: &str| name.len() as f64 * LEGEND_LETTER + LEGEND_GAP;
        let all: f64 = self.legend.iter().map(|(_, name)| long(name)).sum();
        let mut at = LABELS.min(LABELS + BARS + FIGURES - all).max(8.0);
        for (colour, name) in &self.legend {
            let (class, text_at) = (colour.class(), at + 15.0);
            let _ = writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{at}\" y=\"31\" width=\"{BAR}\" height=\"{BAR}\"/>\
                 <text x=\"{text_at}\" y=\"41\">{name}</text>"
            );
            at += long(name);
        }
    }
}

fn ticks(svg: &mut String, scale: f64, bottom: f64) {
    for tick in 0..=TICKS {
        let share = f64::from(tick) / f64::from(TICKS);
        let (at, value, under) = (LABELS + BARS * share, scale * share, bottom + 18.0);
        let _ = writeln!(
            svg,
            "<line class=\"scale\" x1=\"{at}\" x2=\"{at}\" y1=\"{HEAD}\" y2=\"{bottom}\"/>\
             <text class=\"figure\" x=\"{at}\" y=\"{under}\" text-anchor=\"middle\">{value}</text>"
        );
    }
}

fn bars(svg: &mut String, group: &Group, top: f64, scale: f64) {
    let (label, middle, end) = (&group.label, top + group.height() / 2.0 + 4.0, LABELS - 8.0);
    let _ = writeln!(
        svg,
        "<text x=\"{end}\" y=\"{middle}\" text-anchor=\"end\">{label}</text>"
    );
    let mut top = top + GAP / 2.0;
    for bar in &group.bars {
        let long = BARS * bar.value / scale;
        let (behind, base) = (LABELS + long + 5.0, top + BAR - 2.0);
        let (class, figure) = (bar.colour.class(), &bar.figure);
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{LABELS}\" y=\"{top}\" width=\"{long:.1}\" height=\"{BAR}\"/>\
             <text class=\"figure\" x=\"{behind:.1}\" y=\"{base}\">{figure}</text>"
        );
        top += BAR;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(value: f64) -> Bar {
        Bar {
            colour: Colour::Blue,
            value,
            figure: format!("{value} s"),
        }
    }

    fn chart(scale: Scale) -> String {
        let group = |label: &str, bars| Group {
            label: label.to_owned(),
            bars,
        };
        let groups = vec![
            group("long", vec![bar(10.0), bar(5.0)]),
            group("short", vec![bar(1.0)]),
            group("nothing", vec![]),
        ];
        let legend = vec![(Colour::Blue, "ours")];
        let title = "Seconds";
        Chart {
            title,
            legend,
            scale,
            groups,
        }
        .svg()
    }

    #[test]
    fn bars_are_as_long_as_their_scale_says_and_an_empty_group_is_left_out() {
        let shared = chart(Scale::Shared);
        for width in ["400.0", "200.0", "40.0"] {
            assert!(shared.contains(&format!("width=\"{width}\"")), "{shared}");
        }
        assert!(!shared.contains("nothing"));
        let own = chart(Scale::Own);
        assert_eq!(own.matches("width=\"400.0\"").count(), 2, "{own}");
        assert!(!own.contains("class=\"scale\""));
    }
}
