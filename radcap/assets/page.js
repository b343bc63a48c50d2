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
}
