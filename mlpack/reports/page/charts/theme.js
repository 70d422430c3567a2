// Colours come from the page's style sheet, so that charts follow its light, dark and printed form.
"use strict";

function palette() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ground", "text", "muted", "line", "original", "optimized", "other"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

function see_through(colour, share) {
  return colour + Math.round(share * 255).toString(16).padStart(2, "0");
}

// The colour of a contender or candidate.
function colour_of(colours, kind) {
  return { original: colours.original, optimized: colours.optimized, chosen: colours.optimized }[kind] ?? colours.other;
}

function axis(colours, title, more) {
  return {
    title: { display: true, text: title, color: colours.muted },
    grid: { color: colours.line, tickLength: 0 },
    border: { color: colours.line },
    ...more,
    ticks: { color: colours.muted, padding: 6, maxRotation: 0, ...more.ticks },
  };
}

// Milliseconds over orders of magnitude need a logarithmic axis, with a tick only where 1, 2 or 5 begins.
function time_axis(colours, title, least, most, wide) {
  if (most / least < wide) {
    return axis(colours, title, { type: "linear", beginAtZero: true, suggestedMax: most * 1.1 });
  }
  const round = (value) => [1, 2, 5].includes(Number(value.toExponential().split("e")[0]));
  const afterBuildTicks = (scale) => (scale.ticks = scale.ticks.filter(({ value }) => round(value)));
  const ticks = { callback: String };
  return axis(colours, title, { type: "logarithmic", min: least * 0.85, max: most * 1.15, ticks, afterBuildTicks });
}

function tooltip(colours, lines) {
  return {
    backgroundColor: colours.text,
    titleColor: colours.ground,
    bodyColor: colours.ground,
    displayColors: false,
    padding: 10,
    callbacks: { title: (items) => lines(items[0])[0], label: (item) => lines(item).slice(1) },
    filter: (item, index) => index === 0,
  };
}
