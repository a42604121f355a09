// A card opens in a dialog, its images large and side by side; a close-up shows the same place of
// each. Arrow keys go to the next card, Z is the close-up, and the dialog's own Escape closes it.
const dialog = document.querySelector('dialog')
const cards = [...document.querySelectorAll('.card')]
const view = dialog.querySelector('.images')
let shown = 0

function show(index) {
  shown = (index + cards.length) % cards.length
  view.replaceChildren(...[...cards[shown].querySelectorAll('.image')].map(i => i.cloneNode(true)))
  dialog.querySelector('.bar span').textContent =
    cards[shown].querySelector('.caption').textContent
  if (!dialog.open) dialog.showModal()
}

const actions = {
  previous: () => show(shown - 1),
  next: () => show(shown + 1),
  near: () => view.classList.toggle('near'),
  close: () => dialog.close(),
}
const keys = { ArrowLeft: 'previous', ArrowRight: 'next', z: 'near', Z: 'near' }

cards.forEach((card, i) => card.addEventListener('click', () => show(i)))
for (const button of dialog.querySelectorAll('button'))
  button.addEventListener('click', () => actions[button.name]())
dialog.addEventListener('keydown', event => {
  if (event.key in keys) {
    event.preventDefault()
    actions[keys[event.key]]()
  }
})
dialog.addEventListener('click', event => {
  if (event.target === dialog) dialog.close() // its backdrop
})
view.addEventListener('click', event => {
  if (event.target.closest('.frame')) actions.near()
})
view.addEventListener('pointermove', event => {
  const frame = event.target.closest('.frame')
  if (!frame) return
  const box = frame.getBoundingClientRect()
  view.style.setProperty('--x', `${(100 * (event.clientX - box.left)) / box.width}%`)
  view.style.setProperty('--y', `${(100 * (event.clientY - box.top)) / box.height}%`)
})
