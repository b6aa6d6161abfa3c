// Helpers shared by a page's scripts: answers stored in this browser, and DOM elements.
const lab = {
  /** A value stored for this page, read once and written by `save`. Without storage, it is lost when the page closes. */
  kept(key, fallback) {
    const name = `${key} of ${location.pathname.split("/").at(-1)}`;
    const tryStorage = (action) => {
      try {
        return action(localStorage);
      } catch {
        return undefined;
      }
    };
    const stored = () => tryStorage((storage) => JSON.parse(storage.getItem(name)));
    return {
      value: stored() ?? fallback,
      /** Store an entry of the value, or remove it; another tab may have stored other entries. */
      save(entry, value) {
        if (value === undefined) delete this.value[entry];
        else this.value[entry] = value;
        const now = { ...stored(), [entry]: value }; // JSON leaves out undefined
        tryStorage((storage) => storage.setItem(name, JSON.stringify(now)));
      },
    };
  },
  /** [page, value] for each page that has stored a value under this key, in the order of the pages. */
  all(key) {
    try {
      const names = Object.keys(localStorage).filter((name) => name.startsWith(`${key} of `));
      return names.sort().map((name) => [name.slice(`${key} of `.length), JSON.parse(localStorage.getItem(name))]);
    } catch {
      return [];
    }
  },
  /** A number as people write it: 1536, 1,536, 1.234.567, 0,0169, 2.5e-3; NaN for anything else. */
  number(text) {
    const [, digits, exponent = ""] = /^([^e]*)(e.*)?$/i.exec(text);
    let plain = digits.replace(",", ".");
    if (/^[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?$/.test(digits)) plain = digits.replaceAll(",", "");
    if (/^[-+]?[1-9]\d{0,2}((\.\d{3})+,\d+|(\.\d{3}){2,})$/.test(digits)) plain = digits.replaceAll(".", "").replace(",", ".");
    return plain ? Number(plain + exponent) : Number.NaN;
  },
  make(tag, properties, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  },
};
