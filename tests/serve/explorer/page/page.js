// A page with nothing but a disk: its data come from /data/NAME, its captions and pictures are made up here.
import { Disk } from "/explorer/js/disk/disk.js";
import { overlap } from "/explorer/js/disk/boxes.js";
import * as layout from "/explorer/js/disk/layout.js";
import * as mobius from "/explorer/js/disk/mobius.js";
import * as nearby from "/explorer/js/disk/nearby.js";
import * as plane from "/explorer/js/disk/plane.js";
import * as scale from "/explorer/js/disk/scale.js";

document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
const TYPES = { uint32: Uint32Array, float32: Float32Array, uint8: Uint8Array };

async function columns(name) {
  const buffer = await (await fetch(`/data/${name}`)).arrayBuffer();
  const size = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  const found = { header };
  for (const { name: column, type, offset, length } of header.columns) {
    found[column] = new TYPES[type](buffer, 4 + size + offset, length);
  }
  return found;
}

const drawn = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => {
  const canvas = new OffscreenCanvas(72, 64);
  const context = canvas.getContext("2d");
  context.fillStyle = `hsl(${i * 45} 60% 75%)`;
  context.fillRect(0, 0, 72, 64);
  context.fillStyle = `hsl(${i * 45 + 140} 70% 40%)`;
  context.fillRect(12 + 3 * i, 10, 24, 40);
  return canvas.transferToImageBitmap();
});

const calls = { hover: [], select: [], open: [], lasso: [], labels: 0, thumbnails: 0 };
const map = await columns("map");
const names = map.header.names ?? [];
const disk = new Disk(document.getElementById("host"), {
  onHover: (key) => calls.hover.push(key),
  onSelect: (key) => calls.select.push(key),
  onOpen: (key) => calls.open.push(key),
  onLasso: (keys) => calls.lasso.push([...keys]),
  labels: async (keys) => {
    calls.labels += 1;
    return new Map(keys.map((key) => [key, { text: names[key] ?? `point ${key}`, id: String(key), modality: "text" }]));
  },
  thumbnails: async (keys) => {
    calls.thumbnails += 1;
    return new Map(keys.map((key) => [key, drawn[key % drawn.length]]));
  },
});
disk.setMap(map);
Object.assign(window, { disk, map, calls, columns, overlap, layout, mobius, nearby, plane, scale, ready: true });
