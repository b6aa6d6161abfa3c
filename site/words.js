// Lesson 14 on a page without a kernel: the reader builds sentences from menus, and each word has a stored number below it.
for (const place of document.querySelectorAll("[data-words]")) {
  const { make } = lab;
  const { menus, read } = JSON.parse(place.querySelector("script").textContent);
  const shown = make("div", { role: "status" }); // the last sentences, the newest first
  const selects = menus.map((words, at) => {
    const options = words.map((word) => make("option", { textContent: word }));
    return make("select", { ariaLabel: `part ${at + 1} of the sentence` }, ...options);
  });
  const signed = (number) => `${number < 0 ? "−" : "+"}${Math.abs(number).toFixed(1)}`;

  function add() {
    const sentence = selects.map((select) => select.value).join(" ");
    const [sure, ...numbers] = read[sentence];
    const words = sentence.split(" ").map((word, at) => {
      const element = make("span", {}, make("b", { textContent: word }), make("small", { textContent: signed(numbers[at]) }));
      element.className = numbers[at] < 0 ? "praise" : "blame";
      element.style.setProperty("--share", `${Math.min(20 * Math.abs(numbers[at]), 75)}%`);
      return element;
    });
    shown.prepend(make("p", {}, make("span", { textContent: `${sure}% positive` }), ...words));
    while (shown.children.length > 5) shown.lastChild.remove();
  }

  for (const select of selects) select.addEventListener("change", add);
  const title = make("p", { className: "title", textContent: "No Python here? Build a sentence from these menus." });
  place.append(make("div", { className: "lab-words" }, title, make("p", {}, ...selects), shown));
  add();
}
