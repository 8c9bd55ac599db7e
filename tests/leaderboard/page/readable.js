// Texts of which the contrast to what lies behind them is under 4.5, and what can be scrolled but has no name or no focus.
() => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((one) => top[one] * top[3] + under[one] * (1 - top[3])).concat(1);
  const luminance = (colour) => {
    const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.slice(0, 3).map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("script, title, option")) continue;
    if (!element.checkVisibility({ visibilityProperty: true })) continue;
    let back = rgba("Canvas");
    let opacity = 1;
    const layers = [];
    for (let one = element; one; one = one.parentElement) {
      layers.unshift(rgba(getComputedStyle(one).backgroundColor));
      opacity *= Number(getComputedStyle(one).opacity);
    }
    for (const layer of layers) back = over(layer, back);
    const style = getComputedStyle(element);
    const ink = rgba(element.closest("svg") ? style.fill : style.color);
    const [bright, dark] = [luminance(over([...ink.slice(0, 3), ink[3] * opacity], back)), luminance(back)].sort((a, b) => b - a);
    const ratio = (bright + 0.05) / (dark + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)}: ${walker.currentNode.data.trim()}`);
  }
  for (const one of document.querySelectorAll(".scroll"))
    if (one.tabIndex !== 0 || !one.ariaLabel) found.push(`not to be reached: ${one.textContent.slice(0, 40)}`);
  for (const one of document.querySelectorAll("table"))
    if (!one.caption?.textContent && !one.closest("[aria-label]")) found.push(`no name: ${one.textContent.slice(0, 40)}`);
  return found;
}
