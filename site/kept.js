// What a page's own scripts share: answers that stay in this browser, and elements.
const lab = {
  /** A value of this page, read once and kept with `save`. Without storage it lasts as long as the page. */
  kept(what, fallback) {
    const name = `${what} of ${location.pathname.split("/").at(-1)}`;
    const store = (action) => {
      try {
        return action(localStorage);
      } catch {
        return undefined;
      }
    };
    return {
      value: store((storage) => JSON.parse(storage.getItem(name))) ?? fallback,
      save(value = this.value) {
        store((storage) => storage.setItem(name, JSON.stringify(value)));
      },
    };
  },
  make(tag, properties, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  },
};
