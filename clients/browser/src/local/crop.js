/** Crops people out of a picture. Pixel centres lie at integer coordinates, as in service/pose/crop.py. */

/** @typedef {import("./pixels.js").Pixels} Pixels */
/** @typedef {[number, number, number, number]} Xyxy Left, top, right, bottom. */
/** @typedef {{ scale: number, left: number, top: number }} ToImage Image px = scale * crop px + (left, top). */

/** Grey of a crop beyond the picture's edge. */
const BORDER = 114;

/**
 * Enlarge a box about its centre to the crop's aspect ratio, then by `padding`.
 *
 * @param {Xyxy} box
 * @param {[number, number]} cropSize Width and height, pixels.
 * @param {number} padding
 * @returns {ToImage}
 */
export function cropToImage([left, top, right, bottom], [width, height], padding) {
  const scale = padding * Math.max(Math.max(right - left, 1) / width, Math.max(bottom - top, 1) / height);
  return {
    scale,
    left: (left + right) / 2 - (scale * (width - 1)) / 2,
    top: (top + bottom) / 2 - (scale * (height - 1)) / 2,
  };
}

/**
 * Resample one crop. Bilinear sampling reads four pixels at any scale, so the region is first halved until less than a
 * factor of two is left.
 *
 * @param {Pixels} image
 * @param {ToImage} toImage
 * @param {[number, number]} cropSize
 * @param {Uint8Array} crop Gets the crop, RGB.
 */
export function warp(image, toImage, cropSize, crop) {
  const step = 2 ** Math.floor(Math.log2(Math.max(1, toImage.scale)));
  if (step >= 2) [image, toImage] = shrink(image, toImage, cropSize, step);
  const { data, width, height, channels } = image;
  const pixel = (/** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ channel) =>
    x < 0 || y < 0 || x >= width || y >= height ? BORDER : data[(y * width + x) * channels + channel];
  let at = 0;
  for (let row = 0; row < cropSize[1]; row += 1) {
    const y = toImage.scale * row + toImage.top;
    const [top, down] = [Math.floor(y), y - Math.floor(y)];
    for (let column = 0; column < cropSize[0]; column += 1) {
      const x = toImage.scale * column + toImage.left;
      const [left, across] = [Math.floor(x), x - Math.floor(x)];
      for (let channel = 0; channel < 3; channel += 1) {
        const above = pixel(left, top, channel) * (1 - across) + pixel(left + 1, top, channel) * across;
        const below = pixel(left, top + 1, channel) * (1 - across) + pixel(left + 1, top + 1, channel) * across;
        crop[at++] = Math.round(above * (1 - down) + below * down);
      }
    }
  }
}

/**
 * Shrink the part of a picture that a crop reads by `step`, a power of two.
 *
 * @param {Pixels} image
 * @param {ToImage} toImage
 * @param {[number, number]} cropSize
 * @param {number} step
 * @returns {[Pixels, ToImage]}
 */
function shrink(image, toImage, [width, height], step) {
  const { scale, left, top } = toImage;
  const low = [left, top].map((it) => Math.max(0, Math.floor(it) - step));
  const high = [left + scale * width, top + scale * height].map((it, i) => Math.max(low[i] + step, Math.ceil(it) + step));
  const cellsX = Math.floor((Math.min(high[0], image.width) - low[0]) / step);
  const cellsY = Math.floor((Math.min(high[1], image.height) - low[1]) / step);
  if (cellsX < 1 || cellsY < 1) return [image, toImage];
  let small = halve(image, low[0], low[1], (cellsX * step) / 2, (cellsY * step) / 2);
  while (small.height > cellsY) small = halve(small, 0, 0, small.width / 2, small.height / 2);
  // Image x -> small x: (x - low + 1/2) / step - 1/2.
  const onto = (/** @type {number} */ offset, /** @type {number} */ from) => (offset - from + 0.5) / step - 0.5;
  return [small, { scale: scale / step, left: onto(left, low[0]), top: onto(top, low[1]) }];
}

/**
 * Average blocks of 2 x 2 pixels, from (left, top) on.
 *
 * @param {Pixels} image
 * @param {number} left
 * @param {number} top
 * @param {number} width Of the result.
 * @param {number} height
 * @returns {Pixels}
 */
function halve({ data, width: rowLength, channels }, left, top, width, height) {
  const half = new Uint8Array(width * height * 3);
  const stride = rowLength * channels;
  for (let y = 0, to = 0; y < height; y += 1) {
    for (let x = 0, at = (top + 2 * y) * stride + left * channels; x < width; x += 1, at += 2 * channels) {
      for (let channel = 0; channel < 3; channel += 1) {
        const [a, b] = [at + channel, at + channel + channels];
        half[to++] = (data[a] + data[b] + data[a + stride] + data[b + stride] + 2) >> 2;
      }
    }
  }
  return { data: half, width, height, channels: 3 };
}
