// What a reader's eyes and fingers meet in a letter or a page: run inside the page, returns plain values.
() => {
  const seen = element => {
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    return style.display !== "none" && style.visibility === "visible" && box.width > 0 && box.height > 0;
  };
  const numbers = colour => colour.match(/[\d.]+/g).map(Number);
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const luminance = colour => {
    const [r, g, b] = colour.map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, text = node.data.trim();
    if (!text || !seen(node.parentElement)) continue;
    const style = getComputedStyle(node.parentElement), range = document.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    texts.push({
      text, size: parseFloat(style.fontSize), left: box.left, right: box.right,
      contrast: contrast(numbers(style.color).slice(0, 3), ground(node.parentElement).slice(0, 3)),
    });
  }
  const links = [...document.querySelectorAll("a")].map(link => {
    link.scrollIntoView();
    // its first line: the middle of several may be between two
    const [box] = link.getClientRects();
    const hit = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
    const button = ground(link), beneath = ground((link.closest("table") || link).parentElement);
    return { text: link.innerText, href: link.getAttribute("href"), height: box.height, reached: hit === link,
             seen: seen(link), stands_out: contrast(button.slice(0, 3), beneath.slice(0, 3)) };
  });
  return {
    texts, links, width: document.documentElement.clientWidth, needed: document.documentElement.scrollWidth,
    language: document.documentElement.lang, title: document.title,
    headings: [...document.querySelectorAll("h1,h2,h3,h4,h5,h6")].map(h => h.tagName + " " + h.innerText),
    data_tables: [...document.querySelectorAll("table")].filter(t => t.getAttribute("role") !== "presentation").length,
    unnamed_images: [...document.querySelectorAll("img:not([alt])")].length,
    spoken: document.body.innerText,
  };
}
