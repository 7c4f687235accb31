// Before and after: the slider between the base model's picture and a method's, and clips that play.
"use strict";

// A <figure> of the overview that shows the picture of one prompt and one method.
const labelOf = (figure) => figure.querySelector(".label").textContent;

function addSlider(view) {
  const compare = view.querySelector(".compare");
  if (!compare) return;
  const [prompt, method] = compare.querySelectorAll("select");
  const [before, after] = compare.querySelectorAll(".shot");
  const [left, right] = compare.querySelectorAll(".scores span");
  const pair = compare.querySelector(".pair");
  const range = compare.querySelector("input[type=range]");
  const prompts = [...view.querySelectorAll(".prompt")];
  const show = (shot, text, figure) => {
    const source = figure.querySelector(".shot");
    shot.style.cssText = source.style.cssText;
    shot.querySelector("img").src = source.querySelector("img").src;
    text.textContent = `${labelOf(figure)} ${figure.querySelector(".score").textContent}`;
  };
  const cut = (share) => { range.value = share; pair.style.setProperty("--cut", `${range.value}%`); };
  // Options are the methods that have a picture of the prompt; the one that was chosen stays, where it can.
  const update = () => {
    const [base, ...others] = prompts[prompt.value].querySelectorAll("figure");
    const kept = method.value;
    method.replaceChildren(...others.map((figure) => new Option(labelOf(figure))));
    if (others.some((figure) => labelOf(figure) === kept)) method.value = kept;
    show(before, left, base);
    show(after, right, others.find((figure) => labelOf(figure) === method.value));
  };
  prompt.addEventListener("change", update);
  method.addEventListener("change", update);
  range.addEventListener("input", () => cut(range.value));
  const follow = (event) => {
    const box = pair.getBoundingClientRect();
    cut((100 * (event.clientX - box.left)) / box.width);
  };
  pair.addEventListener("pointerdown", (event) => { pair.setPointerCapture(event.pointerId); follow(event); });
  pair.addEventListener("pointermove", (event) => { if (pair.hasPointerCapture(event.pointerId)) follow(event); });
  prompts.forEach((box, place) => box.querySelectorAll("figure").forEach((figure, number) => {
    figure.querySelector("button")?.addEventListener("click", () => {
      prompt.value = place;
      update();
      if (number) { method.value = labelOf(figure); update(); }
      compare.scrollIntoView({ block: "nearest" });
      range.focus({ preventScroll: true });
    });
  }));
  cut(50);
  update();
}

// All clips of a section show the same frame at a time. Nobody's clips move unasked.
function addPlayer(view) {
  const player = view.querySelector(".player");
  if (!player) return;
  const play = player.querySelector("button");
  const frame = player.querySelector("input[type=range]");
  const flat = player.querySelector("input[type=checkbox]");
  const count = Number(frame.max);
  let timer = null;
  const show = (number) => {
    frame.value = number;
    view.style.setProperty("--frame", number - 1);
    player.querySelector("output").textContent = `${number} of ${count}`;
  };
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
  play.addEventListener("click", () => {
    if (timer !== null) { stop(); return; }
    timer = setInterval(() => show((Number(frame.value) % count) + 1), Number(player.dataset.milliseconds));
    play.textContent = "Pause";
  });
  frame.addEventListener("input", () => { stop(); show(Number(frame.value)); });
  flat.addEventListener("change", () => view.classList.toggle("flat", flat.checked));
  printing.addEventListener("change", () => view.classList.toggle("flat", printing.matches || flat.checked));
  show(1);
}

for (const view of document.querySelectorAll(".before-after")) {
  addSlider(view);
  addPlayer(view);
}
