from playwright.sync_api import expect

from tests.e2e.conftest import serving
from tests.e2e.pages import panel_of, requests_elsewhere
from tests.e2e.panels import ONE_EACH_CELL
from tests.e2e.test_drawn_panels import assert_drawn

SHOW = f"""
from lora_course import cli
from lora_course.classroom import projector
projector.PANELS += ({ONE_EACH_CELL!r},)
cli.main()
"""


def test_panels_are_live_behind_a_token_without_a_network(browser, tmp_path):
    page = browser.new_page()
    requests = requests_elsewhere(page)
    options = ["--no-browser", "--port", "0", "--out", str(tmp_path / "runs")]
    with serving(["-c", SHOW, "show", *options], tmp_path) as address:
        page.goto(address.partition("?")[0])
        assert "/login" in page.url  # without the token
        page.goto(address, wait_until="commit")  # the page grows while its cells are run
        panel_of(page, 2).wait_for(timeout=400_000)
        assert_drawn(page, first=3)
        panel_of(page, 2).get_by_role("button", name="Start").click()
        expect(panel_of(page, 2).get_by_role("button", name="Stop")).to_be_enabled()  # the kernel answers
        assert not requests
        assert not (tmp_path / "blocked").exists()
        page.close()
