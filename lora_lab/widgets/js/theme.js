// Light or dark is what the page behind the panel is, whoever made it so: no need to know the page's own switch.

/** The first opaque background behind an element, white if there is none. Empty styles: it is in no page yet. */
function paperBehind(element) {
  if (!element) return "rgb(255, 255, 255)";
  const color = getComputedStyle(element).backgroundColor;
  const clear = !color || color === "transparent" || color.endsWith(", 0)");
  return clear ? paperBehind(element.parentElement ?? element.getRootNode().host) : color;
}

/** Keep the card's --paper and its class "dark" in step with the page. Returns what ends it. */
export function followPage(element, card) {
  const night = matchMedia("(prefers-color-scheme: dark)");
  const look = () => {
    const paper = paperBehind(element);
    const [red, green, blue] = paper.match(/[\d.]+/g).map(Number);
    card.style.setProperty("--paper", paper);
    card.classList.toggle("dark", 0.3 * red + 0.6 * green + 0.1 * blue < 128);
  };
  let late;
  const again = () => {
    look();
    clearTimeout(late);
    late = setTimeout(look, 300); // a theme's style sheet may come after its name
  };
  const watch = new MutationObserver(again);
  for (const node of [document.documentElement, document.body]) watch.observe(node, { attributes: true });
  night.addEventListener("change", again);
  look();
  requestAnimationFrame(look); // by then it is in the page
  return () => {
    clearTimeout(late);
    watch.disconnect();
    night.removeEventListener("change", again);
  };
}
