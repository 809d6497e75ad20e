"use strict";
(async () => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const library = document.createElement("script");
  library.textContent = await new Response(stream).text();
  document.head.append(library);
  library.remove(); // it has run

  const axis = { automargin: true, gridcolor: "#eef2f7", linecolor: "#cbd5e1", zerolinecolor: "#cbd5e1", title: { standoff: 8 } };
  const merge = (low, high) => {
    const made = { ...low, ...high };
    for (const key of Object.keys(low)) {
      if (high[key] && typeof low[key] === "object" && !Array.isArray(low[key])) made[key] = merge(low[key], high[key]);
    }
    return made;
  };
  const base = (narrow) => ({
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", size: narrow ? 11 : 12, color: "#334155" },
    margin: { l: 44, r: 10, t: 8, b: 40 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: { font: { size: 12 } },
    legend: { orientation: "h", yanchor: "bottom", y: 1.01, x: 0, xanchor: "left" },
    xaxis: axis,
    yaxis: axis,
  });
  const draw = (place) => {
    if (place.dataset.drawn) return;
    place.dataset.drawn = "yes";
    const one = figures[place.dataset.figure];
    const layout = merge(base(place.clientWidth < 480), one.layout);
    Plotly.newPlot(place, one.data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
  };
  const drawOpen = (root) => {
    for (const place of root.querySelectorAll(".plot")) {
      if (!place.closest("details:not([open])")) draw(place);
    }
  };
  drawOpen(document);
  for (const fold of document.querySelectorAll("details.run")) fold.addEventListener("toggle", () => drawOpen(fold));
})();
