// Helpers shared by the scripts of a page: answers stored in this browser, and DOM elements.
const lab = {
  /** A value stored for this page, read once and written by `save`. Without storage it lasts as long as the page. */
  kept(key, fallback) {
    const name = `${key} of ${location.pathname.split("/").at(-1)}`;
    const tryStorage = (action) => {
      try {
        return action(localStorage);
      } catch {
        return undefined;
      }
    };
    return {
      value: tryStorage((storage) => JSON.parse(storage.getItem(name))) ?? fallback,
      save(value = this.value) {
        tryStorage((storage) => storage.setItem(name, JSON.stringify(value)));
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
  make(tag, properties, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  },
};
