@echo off
rem Install the lab from this folder, without network and without admin rights. Double-click it.
setlocal
set "PYTHONUTF8=1"
for %%f in ("%~dp0windows-3.*.txt") do call :one "%%~nf" %*
if defined done goto end
python "%~dp0install.py" %*
goto end

:one
if defined done exit /b
set "name=%~1"
set "version=%name:windows-=%"
py -%version% -c "" >nul 2>nul || exit /b
set done=1
shift
py -%version% "%~dp0install.py" %1 %2 %3 %4 %5 %6
exit /b

:end
pause
