// Light or dark follows the background of the page behind the panel, however the page sets it.

/** The first opaque background behind an element, or white. Styles are empty until the element is on a page. */
function paperBehind(element) {
  if (!element) return "rgb(255, 255, 255)";
  const color = getComputedStyle(element).backgroundColor;
  const clear = !color || color === "transparent" || /^rgba.*, 0\)$/.test(color);
  return clear ? paperBehind(element.parentElement ?? element.getRootNode().host) : color;
}

/** Keep the card's --paper and class "dark" in sync with the page; redraw when the class changes. Returns a stop function. */
export function followPage(element, card, redraw) {
  const night = matchMedia("(prefers-color-scheme: dark)");
  let wasDark;
  const update = () => {
    const paper = paperBehind(element);
    const [red, green, blue] = paper.match(/[\d.]+/g).map(Number);
    card.style.setProperty("--paper", paper);
    const dark = 0.3 * red + 0.6 * green + 0.1 * blue < 128;
    if (dark === wasDark) return;
    wasDark = dark;
    card.classList.toggle("dark", dark);
    redraw();
  };
  let timer;
  const updateTwice = () => {
    update();
    clearTimeout(timer);
    timer = setTimeout(update, 300); // a theme's style sheet may load after its name changes
  };
  const observer = new MutationObserver(updateTwice);
  for (const node of [document.documentElement, document.body]) observer.observe(node, { attributes: true });
  night.addEventListener("change", updateTwice);
  update();
  requestAnimationFrame(update); // by then the card is on the page
  return () => {
    clearTimeout(timer);
    observer.disconnect();
    night.removeEventListener("change", updateTwice);
  };
}
