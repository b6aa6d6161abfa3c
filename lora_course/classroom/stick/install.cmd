@echo off
rem Install the lab from this folder, without a network or admin rights. Double-click it.
setlocal
set "PYTHONUTF8=1"
set "here=%~dp0"
set "done="
for %%f in ("%here%windows-3.*.txt") do call :one "%%~nf" %*
set "program=python"
rem Without Python, `python` opens the Microsoft Store; the launcher's Python at least says which version is needed.
python -c "" >nul 2>nul || py -3 -c "" >nul 2>nul && set "program=py -3"
if not defined done %program% "%here%install.py" %*
pause
exit /b

:one
if defined done exit /b
set "name=%~1"
py -%name:windows-=% -c "" >nul 2>nul || exit /b
set "done=yes"
shift /1
py -%name:windows-=% "%here%install.py" %1 %2 %3 %4 %5 %6
exit /b
