const rows = JSON.parse(document.getElementById("data").textContent);
const spans = Array.from(document.querySelectorAll(".text span"));
spans.forEach((span, number) => { span.number = number; });
showCards(document.querySelector("article"), spans, (number) => rows[number]);
for (const button of document.querySelectorAll(".switch button")) {
  button.addEventListener("click", () => {
    document.querySelector("main").className = button.dataset.mode;
    document.querySelectorAll(".switch button").forEach(
      (other) => other.setAttribute("aria-pressed", String(other === button)));
  });
}
