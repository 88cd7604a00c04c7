'use strict';
(() => {
  // All text from data goes through textContent; the page's policy forbids anything else.
  const data = JSON.parse(document.getElementById('data').textContent);
  const images = data.images, count = images.name.length;
  const $ = (id) => document.getElementById(id);
  const area = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 });
  const whole = new Intl.NumberFormat('en');
  const km2 = (value) => (value === null ? '–' : area.format(value));
  const percent = (value) => `${area.format(100 * value)} %`;
  const make = (tag, text, name) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  };

  // The map: longitudes and latitudes as x and y; `scale` is pixels per degree.
  const map = $('map'), canvas = $('canvas'), pen = canvas.getContext('2d');
  const LARGEST = 4000, BIN = 26;
  let view = { lat: 20, lon: 0, scale: 1 }, chosen = null, marked = null, colours = {};
  const least = () => Math.min(map.clientWidth / 360, map.clientHeight / 180);
  const turn = (lon) => ((((lon + 180) % 360) + 360) % 360) - 180;

  function move(lat, lon, scale) {
    view.scale = Math.min(LARGEST, Math.max(least(), scale));
    const half = Math.min(90, map.clientHeight / 2 / view.scale);
    view.lat = Math.max(-90 + half, Math.min(90 - half, lat));
    view.lon = turn(lon);
    draw();
  }

  function zoom(factor, x = map.clientWidth / 2, y = map.clientHeight / 2) {
    const dx = x - map.clientWidth / 2, dy = y - map.clientHeight / 2;
    const scale = Math.min(LARGEST, Math.max(least(), view.scale * factor));
    move(view.lat - dy / view.scale + dy / scale, view.lon + dx / view.scale - dx / scale, scale);
  }

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ['sea', 'land', 'grid', 'dot', 'dot-ink', 'region', 'truth', 'ink', 'paper'])
      colours[name] = style.getPropertyValue(`--${name}`).trim();
  }

  const y = (lat) => map.clientHeight / 2 - (lat - view.lat) * view.scale;
  const x = (lon, shift) => map.clientWidth / 2 + (lon + shift - view.lon) * view.scale;

  function draw() {
    const width = map.clientWidth, height = map.clientHeight, ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = colours.paper;
    pen.fillRect(0, 0, width, height);
    pen.fillStyle = colours.sea;
    pen.fillRect(0, y(90), width, 180 * view.scale);
    const shifts = [-360, 0, 360].filter((s) => x(180, s) > 0 && x(-180, s) < width);
    drawGrid();
    drawOutline(shifts);
    drawDots(shifts);
    if (chosen !== null) drawChosen(shifts);
    const degrees = 110 / view.scale, km = 111.195 * degrees * Math.cos((view.lat * Math.PI) / 180);
    $('scale').textContent = `centre ${place(view.lat, view.lon)}, 110 px ≈ ${area.format(km)} km`;
    map.dataset.view = [view.lat, view.lon, view.scale].map((v) => v.toFixed(4)).join(' ');
  }

  function place(lat, lon) {
    const digits = view.scale > 200 ? 3 : view.scale > 20 ? 2 : 1;
    return `${Math.abs(lat).toFixed(digits)}° ${lat < 0 ? 'S' : 'N'}, ${Math.abs(lon).toFixed(digits)}° ${lon < 0 ? 'W' : 'E'}`;
  }

  function drawGrid() {
    const step = [30, 10, 5, 1, 0.5, 0.1].find((s) => s * view.scale < 220) || 0.1;
    const spanLon = map.clientWidth / 2 / view.scale, spanLat = map.clientHeight / 2 / view.scale;
    pen.strokeStyle = colours.grid;
    pen.lineWidth = 1;
    pen.beginPath();
    const top = Math.min(90, view.lat + spanLat), bottom = Math.max(-90, view.lat - spanLat);
    for (let lat = Math.ceil(bottom / step) * step; lat <= top; lat += step) {
      pen.moveTo(0, y(lat));
      pen.lineTo(map.clientWidth, y(lat));
    }
    for (let lon = Math.ceil((view.lon - spanLon) / step) * step; lon <= view.lon + spanLon; lon += step) {
      pen.moveTo(x(lon, 0), y(90));
      pen.lineTo(x(lon, 0), y(-90));
    }
    pen.stroke();
  }

  function drawOutline(shifts) {
    pen.strokeStyle = colours.land;
    pen.lineWidth = 1.1;
    pen.beginPath();
    for (const shift of shifts)
      for (const line of data.outline)
        for (let k = 0; k < line.length; k += 2) {
          if (k) pen.lineTo(x(line[k], shift), y(line[k + 1]));
          else pen.moveTo(x(line[k], shift), y(line[k + 1]));
        }
    pen.stroke();
  }

  // Cells that lie near each other on the screen become one dot, whose area grows with the logarithm of its images.
  function bins() {
    const found = new Map();
    for (const [n, lat, lon] of data.cells) {
      const key = `${Math.floor((lon * view.scale) / BIN)}/${Math.floor((lat * view.scale) / BIN)}`;
      const bin = found.get(key) || { n: 0, lat: 0, lon: 0 };
      bin.n += n;
      bin.lat += n * lat;
      bin.lon += n * lon;
      found.set(key, bin);
    }
    return [...found.values()].sort((a, b) => a.n - b.n);
  }

  function drawDots(shifts) {
    pen.textAlign = 'center';
    pen.textBaseline = 'middle';
    pen.globalAlpha = chosen === null ? 0.9 : 0.35;
    for (const bin of bins())
      for (const shift of shifts) {
        const px = x(bin.lon / bin.n, shift), py = y(bin.lat / bin.n);
        if (px < -30 || px > map.clientWidth + 30 || py < -30 || py > map.clientHeight + 30) continue;
        const radius = Math.min(16, 3.5 + 3 * Math.log10(bin.n));
        pen.fillStyle = colours.dot;
        pen.strokeStyle = colours.paper;
        pen.lineWidth = 1;
        pen.beginPath();
        pen.arc(px, py, radius, 0, 2 * Math.PI);
        pen.fill();
        pen.stroke();
        if (bin.n > 9) {
          const text = bin.n < 1000 ? String(bin.n) : bin.n < 1e6 ? `${Math.floor(bin.n / 1000)}k` : `${Math.floor(bin.n / 1e6)}M`;
          pen.fillStyle = colours['dot-ink'];
          pen.font = `${text.length > 2 ? 9 : 10}px sans-serif`;
          if (radius > 6) pen.fillText(text, px, py + 0.5);
        }
      }
    pen.globalAlpha = 1;
  }

  function drawChosen(shifts) {
    const detail = data.details[chosen];
    for (const shift of shifts) {
      if (detail) {
        const top = Math.max(...detail.regions.map((region) => region[1] / region[2]), 0);
        for (let k = detail.regions.length - 1; k >= 0; k--) drawRegion(detail.regions[k], k, top, shift);
        if (detail.truth) cross(x(detail.truth[1], shift), y(detail.truth[0]));
      }
      if (images.lat[chosen] !== null) ring(x(images.lon[chosen], shift), y(images.lat[chosen]));
    }
  }

  // The box around a region, darker where the density is higher, and a square at its centroid.
  function drawRegion(region, k, top, shift) {
    const [rank, probability, size, , , lat, lon, south, west, north, east] = region;
    const right = east < west ? east + 360 : east;
    for (const by of east < west ? [shift, shift - 360] : [shift]) {
      const left = x(west, by), upper = y(north), wide = x(right, by) - left, high = y(south) - upper;
      pen.strokeStyle = pen.fillStyle = colours.region;
      pen.globalAlpha = 0.06 + 0.3 * Math.sqrt(probability / size / (top || 1));
      pen.fillRect(left, upper, wide, high);
      pen.globalAlpha = k === marked ? 1 : 0.55;
      pen.lineWidth = k === marked ? 3 : 1;
      pen.strokeRect(left, upper, wide, high);
    }
    pen.globalAlpha = 1;
    const px = x(lon, shift), py = y(lat), side = k === marked ? 6 : 3.5;
    pen.fillStyle = colours.region;
    pen.fillRect(px - side, py - side, 2 * side, 2 * side);
    if (k < 5 || k === marked) {
      pen.fillStyle = colours.ink;
      pen.font = 'bold 12px sans-serif';
      pen.textAlign = 'left';
      pen.fillText(String(rank), px + side + 8, py);
    }
  }

  function ring(px, py) {
    pen.strokeStyle = colours.paper;
    pen.lineWidth = 6;
    for (const colour of [colours.paper, colours.dot]) {
      pen.strokeStyle = colour;
      pen.beginPath();
      pen.arc(px, py, 8, 0, 2 * Math.PI);
      pen.stroke();
      pen.lineWidth = 3;
    }
  }

  function cross(px, py) {
    pen.lineWidth = 6;
    for (const colour of [colours.paper, colours.truth]) {
      pen.strokeStyle = colour;
      pen.beginPath();
      pen.moveTo(px - 7, py - 7);
      pen.lineTo(px + 7, py + 7);
      pen.moveTo(px + 7, py - 7);
      pen.lineTo(px - 7, py + 7);
      pen.stroke();
      pen.lineWidth = 3;
    }
  }

  // Shows boxes [south, west, north, east] with a margin, across ±180 if that is narrower.
  function show(boxes) {
    const middle = boxes[0][1];
    let south = 90, north = -90, west = Infinity, east = -Infinity;
    for (const [s, w, n, e] of boxes) {
      const from = middle + turn(w - middle), width = e < w ? e + 360 - w : e - w;
      south = Math.min(south, s);
      north = Math.max(north, n);
      west = Math.min(west, from);
      east = Math.max(east, from + width);
    }
    const scale = 0.8 * Math.min(map.clientWidth / Math.max(east - west, 0.02), map.clientHeight / Math.max(north - south, 0.02));
    move((south + north) / 2, (west + east) / 2, scale);
  }

  map.addEventListener('keydown', (event) => {
    const step = 80 / view.scale;
    const does = {
      ArrowUp: () => move(view.lat + step, view.lon, view.scale),
      ArrowDown: () => move(view.lat - step, view.lon, view.scale),
      ArrowLeft: () => move(view.lat, view.lon - step, view.scale),
      ArrowRight: () => move(view.lat, view.lon + step, view.scale),
      '+': () => zoom(1.6), '=': () => zoom(1.6), '-': () => zoom(1 / 1.6), '−': () => zoom(1 / 1.6),
      0: () => move(20, 0, 0),
    }[event.key];
    if (!does || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    does();
  });
  map.addEventListener('wheel', (event) => {
    event.preventDefault();
    const box = map.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left - map.clientLeft, event.clientY - box.top - map.clientTop);
  }, { passive: false });
  let drag = null;
  map.addEventListener('pointerdown', (event) => {
    drag = { x: event.clientX, y: event.clientY, lat: view.lat, lon: view.lon };
    map.setPointerCapture(event.pointerId);
  });
  map.addEventListener('pointermove', (event) => {
    if (drag) move(drag.lat + (event.clientY - drag.y) / view.scale, drag.lon - (event.clientX - drag.x) / view.scale, view.scale);
  });
  for (const end of ['pointerup', 'pointercancel']) map.addEventListener(end, () => { drag = null; });
  $('zoom-in').addEventListener('click', () => zoom(1.6));
  $('zoom-out').addEventListener('click', () => zoom(1 / 1.6));
  $('whole').addEventListener('click', () => move(20, 0, 0));
  $('to-image').addEventListener('click', () => showChosen());

  // The list: a page of rows at a time. One of its buttons is in the tab order; arrow keys move between them.
  const ROWS = 25;
  const folded = images.name.map((name, k) => `${name}\n${data.sources[images.source[k]]}`.toLowerCase());
  let order = [], at = 0, sorted = { key: null, down: false };

  function select() {
    const text = $('filter').value.toLowerCase(), only = $('only').checked;
    order = [];
    for (let k = 0; k < count; k++) if (folded[k].includes(text) && (!only || data.details[k])) order.push(k);
    if (sorted.key) {
      const of = sorted.key === 'source' ? images.source : images[sorted.key], sign = sorted.down ? -1 : 1;
      order.sort((a, b) => {
        if (of[a] === null || of[b] === null) return (of[a] === null) - (of[b] === null) || a - b; // unknown comes last
        return (of[a] < of[b] ? -sign : of[a] > of[b] ? sign : 0) || a - b;
      });
    }
    at = 0;
    list();
    $('found').textContent = `${whole.format(order.length)} of ${whole.format(count)} images`;
  }

  function list(focus = null) {
    const first = at * ROWS, rows = order.slice(first, first + ROWS), body = $('rows');
    body.replaceChildren(...rows.map((k, place) => {
      const row = make('tr'), head = make('th'), button = make('button'), name = make('bdi', images.name[k]);
      head.scope = 'row';
      button.type = 'button';
      button.tabIndex = place ? -1 : 0;
      button.dataset.image = k;
      if (k === chosen) { button.setAttribute('aria-current', 'true'); row.className = 'on'; }
      button.append(name);
      head.append(button);
      const source = make('td');
      source.append(make('bdi', data.sources[images.source[k]]));
      row.append(head, source, make('td', km2(images.half[k]), 'number'), make('td', km2(images.most[k]), 'number'));
      return row;
    }));
    const pages = Math.max(1, Math.ceil(order.length / ROWS));
    $('page').textContent = `page ${at + 1} of ${whole.format(pages)}`;
    $('before').disabled = at === 0;
    $('next').disabled = at >= pages - 1;
    if (focus !== null) buttons()[Math.max(0, focus < 0 ? rows.length - 1 : focus)]?.focus();
  }

  const buttons = () => [...$('rows').querySelectorAll('button')];
  $('rows').addEventListener('keydown', (event) => {
    const every = buttons(), now = every.indexOf(document.activeElement);
    if (now < 0) return;
    const last = at >= Math.ceil(order.length / ROWS) - 1;
    if (event.key === 'ArrowDown' && now === every.length - 1 && !last) { at++; list(0); }
    else if (event.key === 'ArrowUp' && now === 0 && at > 0) { at--; list(-1); }
    else {
      const next = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: every.length - 1 }[event.key];
      if (next === undefined) return;
      every[Math.max(0, Math.min(every.length - 1, next))].focus();
    }
    event.preventDefault();
  });
  $('rows').addEventListener('focusin', (event) => {
    for (const button of buttons()) button.tabIndex = button === event.target ? 0 : -1;
  });
  $('rows').addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (button) choose(Number(button.dataset.image));
  });
  $('find').addEventListener('submit', (event) => event.preventDefault());
  $('filter').addEventListener('input', select);
  $('only').addEventListener('change', select);
  $('before').addEventListener('click', () => { at--; list(); });
  $('next').addEventListener('click', () => { at++; list(); });
  for (const button of document.querySelectorAll('#list thead button'))
    button.addEventListener('click', () => {
      const key = button.dataset.key;
      sorted = { key, down: sorted.key === key && !sorted.down };
      for (const head of document.querySelectorAll('#list thead th')) head.setAttribute('aria-sort', 'none');
      button.parentElement.setAttribute('aria-sort', sorted.down ? 'descending' : 'ascending');
      select();
    });

  // The chosen image.
  function choose(k) {
    chosen = k;
    marked = null;
    for (const button of buttons()) {
      const mine = Number(button.dataset.image) === k;
      button.closest('tr').className = mine ? 'on' : '';
      if (mine) button.setAttribute('aria-current', 'true');
      else button.removeAttribute('aria-current');
    }
    $('to-image').disabled = images.lat[k] === null;
    tell(k);
    showChosen();
  }

  function showChosen() {
    const detail = data.details[chosen];
    if (detail && detail.regions.length) show(detail.regions.map((region) => region.slice(7)));
    else if (images.lat[chosen] !== null) move(images.lat[chosen], images.lon[chosen], Math.max(view.scale, 8));
    else draw();
  }

  function tell(k) {
    const detail = data.details[k], body = $('chosen-body'), said = $('said'), parts = [];
    const name = make('bdi', images.name[k]);
    let words = ': its regions are not in this page; the table ranked_regions has them.';
    if (!images.regions[k]) words = ': there is no answer.';
    else if (detail && detail.regions.length) {
      const [, probability, size] = detail.regions[0];
      words = `: ${whole.format(detail.all)} regions; the first holds ${percent(probability)} in ${km2(size)} km².`;
    }
    said.replaceChildren(name, words);
    if (detail && detail.jpeg) {
      const picture = make('img', undefined, 'thumb');
      picture.src = `data:image/jpeg;base64,${detail.jpeg}`;
      picture.alt = `Small copy of ${images.name[k]}`;
      parts.push(picture);
    }
    for (const doubt of images.doubts[k] || []) parts.push(make('p', `Doubt: ${doubt}.`));
    if (images.copy[k] !== undefined) {
      const copy = make('p', 'The same file as ');
      copy.append(make('bdi', images.copy[k]), ', whose answer this is.');
      parts.push(copy);
    }
    if (images.lat[k] !== null) {
      const best = make('p');
      best.append(make('span', undefined, 'key best'), `best point ${place(images.lat[k], images.lon[k])}, expected to be ${km2(images.km[k])} km off`);
      parts.push(best);
    }
    if (detail && detail.truth) {
      const truth = make('p');
      truth.append(make('span', undefined, 'key truth'), `known position ${place(detail.truth[0], detail.truth[1])}`);
      parts.push(truth);
    }
    if (detail && detail.regions.length) parts.push(regionTable(detail));
    body.replaceChildren(...parts);
  }

  function regionTable(detail) {
    const table = make('table'), caption = make('caption'), head = make('tr'), body = make('tbody');
    table.id = 'regions';
    const told = detail.regions.length < detail.all ? `the first ${whole.format(detail.regions.length)} of ${whole.format(detail.all)}` : `all ${whole.format(detail.all)}`;
    caption.append(make('span', undefined, 'key region'), `Regions by rank, ${told}. A rank's button shows the region on the map.`);
    for (const text of ['rank', 'probability', 'area, km²', 'probability so far', 'area so far, km²', 'centroid']) {
      const cell = make('th', text, text === 'rank' || text === 'centroid' ? '' : 'number');
      cell.scope = 'col';
      head.append(cell);
    }
    detail.regions.forEach((region, k) => {
      const [rank, probability, size, sum, sumArea, lat, lon] = region;
      const row = make('tr'), first = make('th'), button = make('button', String(rank));
      first.scope = 'row';
      button.type = 'button';
      button.setAttribute('aria-label', `Show region ${rank} on the map`);
      button.addEventListener('click', () => { marked = k; show([region.slice(7)]); });
      first.append(button);
      row.append(first);
      for (const text of [percent(probability), km2(size), percent(sum), km2(sumArea)]) row.append(make('td', text, 'number'));
      row.append(make('td', place(lat, lon)));
      body.append(row);
    });
    const top = make('thead'), wide = make('div', undefined, 'wide');
    top.append(head);
    table.append(caption, top, body);
    wide.tabIndex = 0;
    wide.setAttribute('role', 'region');
    wide.setAttribute('aria-label', 'Regions of the chosen image');
    wide.append(table);
    return wide;
  }

  readColours();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { readColours(); draw(); });
  new ResizeObserver(() => move(view.lat, view.lon, view.scale)).observe(map);
  select();
  move(20, 0, 0);
})();
