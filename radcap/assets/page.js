// A pasted picture or file goes the way of a chosen one: into the drop zone's own input.
() => {
  document.addEventListener("paste", (event) => {
    const input = document.querySelector("#rc-drop input[type=file]");
    const file = event.clipboardData?.files?.[0];
    if (!input || !file) return;
    const files = new DataTransfer();
    files.items.add(file);
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    event.preventDefault();
  });

  // A result is of the picture before from when another is given, whether that one arrives or not.
  const shown = () => document.querySelector("#rc-result .rc-result");
  const hide = (event) => {
    if (event.target.closest?.("#rc-drop, .rc-examples button")) shown()?.classList.add("rc-old");
  };
  document.addEventListener("change", hide, true);
  document.addEventListener("drop", hide, true);
  document.addEventListener("click", (event) => {
    if (event.target.closest?.(".rc-examples button")) hide(event);
  }, true);

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
  }).observe(document.body, { subtree: true, childList: true, attributeFilter: ["id"] });
}
