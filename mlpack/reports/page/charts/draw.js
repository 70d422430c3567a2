// Draws the charts of the page, and draws them anew where its colours change.
"use strict";

const figures = JSON.parse(document.getElementById("figures").textContent);
const kinds = { pareto, launches };
let drawn = [];

function draw() {
  drawn.forEach((chart) => chart.destroy());
  const colours = palette();
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  drawn = [...document.querySelectorAll("canvas[data-figure]")].map((canvas) =>
    kinds[canvas.dataset.kind](canvas, figures[canvas.dataset.figure], colours),
  );
}

function on_paper(is) {
  document.documentElement.classList.toggle("paper", is);
  draw();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
addEventListener("beforeprint", () => on_paper(true));
addEventListener("afterprint", () => on_paper(false));
draw();
