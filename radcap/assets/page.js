() => {
  const input = () => document.querySelector("#rc-drop input[type=file]");
  const shown = () => document.querySelector("#rc-result .rc-result");

  // Scrolls only to what is not in the upper half of the window, as on a telephone, where results
  // lie far below.
  const bringIntoView = (part) => {
    const top = part?.getBoundingClientRect().top;
    if (top < 0 || top > window.innerHeight / 2) part.scrollIntoView({ block: "start" });
  };

  // A pasted picture, or one of which another frame is wanted, goes the way of a chosen one: into
  // the drop zone's own input.
  const choose = (file) => {
    const files = new DataTransfer();
    files.items.add(file);
    input().files = files.files;
    input().dispatchEvent(new Event("change", { bubbles: true }));
  };
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData?.files?.[0];
    if (!input() || !file) return;
    choose(file);
    event.preventDefault();
  });

  // The frame to caption, for the server: gradio's own field, which is not shown.
  const setFrame = (number) => {
    const field = document.querySelector("#rc-frame input");
    if (!field) return;
    field.value = String(number);
    field.dispatchEvent(new Event("input", { bubbles: true }));
    field.dispatchEvent(new Event("change", { bubbles: true }));
  };

  // What is given comes by here first. A result is of the picture before from then on, whether the
  // new one arrives or not; and of a file that is too large not a byte is sent.
  let given = null;
  let frame = 0;
  const take = (event) => {
    if (event.target.closest?.(".rc-examples button")) given = null;
    else if (event.target.closest?.("#rc-drop")) {
      const file = (event.target.files ?? event.dataTransfer?.files)?.[0];
      if (!file) return;
      given = file;
    } else return;
    const fault = document.querySelector(".rc-too-large");
    fault.hidden = !given || given.size <= Number(fault.dataset.most);
    shown()?.classList.add("rc-old");
    if (!fault.hidden) {
      given = null;
      event.preventDefault();
      event.stopImmediatePropagation();
      if (event.target.files) event.target.value = "";
    }
    setFrame(frame);
    frame = 0;
    bringIntoView(fault.hidden ? document.querySelector("#rc-result") : fault);
  };
  document.addEventListener("change", take, true);
  document.addEventListener("drop", take, true);
  document.addEventListener("click", (event) => {
    if (event.target.closest?.(".rc-examples button")) take(event);
  }, true);

  // Another frame of the same file, which this page has kept and the server has not.
  const takeFrame = (event) => {
    const field = event.target.closest?.(".rc-frames")?.querySelector("input");
    if (!field || !given || !field.reportValidity() || field.value === "") return;
    frame = Number(field.value);
    choose(given);
  };
  document.addEventListener("click", (event) => {
    if (event.target.closest?.(".rc-frames button")) takeFrame(event);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.closest?.(".rc-frames input")) takeFrame(event);
  });

  // gradio keeps elements that look alike: a new result begins with the picture alone all the same.
  let number = "";
  new MutationObserver(() => {
    const result = shown();
    if (!result || result.id === number) return;
    number = result.id;
    result.classList.remove("rc-old");
    for (const choice of result.querySelectorAll("input[type=radio]")) {
      choice.checked = choice.defaultChecked;
    }
    bringIntoView(result.querySelector(".rc-caption, .rc-fault"));
  }).observe(document.body, { subtree: true, childList: true, attributeFilter: ["id"] });
}
